import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ImagingError } from '../../agent/errors.ts';
import type { VerifyAnswer } from '../api.ts';
import type { State } from '../state.ts';
import { damagedChunks, recordChunks } from '../store/chunks.ts';
import { findVersion } from '../store/images.ts';
import { hashFile } from './durable.ts';
import { changeHurt, checkChunks, chunksHealed } from './hurt.ts';
import { filesOf, readIndexes, readVersion, type VersionIndex, versionFolder } from './version-folder.ts';

/**
 * Read and check everything that a version consists of: its files against the manifest, every chunk against
 * its name. Versions that share a damaged chunk are marked as hurt with it; a chunk that was thought damaged
 * and is sound (restored from a backup) is trusted again.
 *
 * Where an index is damaged nobody can say which chunks are needed, so none is checked.
 *
 * @throws ImagingError IMAGE_NOT_FOUND, IMAGE_INVALID (the manifest cannot be read)
 */
export const verifyVersion = async (
  state: State,
  image: string,
  version: number,
  signal?: AbortSignal,
): Promise<VerifyAnswer> => {
  const folder = versionFolder(state.paths.images, image, version);
  const signed = await readVersion(folder);
  if (!signed)
    throw new ImagingError('IMAGE_NOT_FOUND', `Cannot verify ${image}@${version}: no such version`);
  const files: string[] = [];
  for (const { name, size, sha256 } of filesOf(signed.manifest)) {
    const found = await hashFile(join(folder, name)).catch(() => undefined);
    if (found?.size !== size || found.sha256 !== sha256) files.push(name);
  }
  const chunks = files.some((name) => name.endsWith('.caibx'))
    ? { checked: 0, damaged: [], missing: [] }
    : await verifyChunks(state, await readIndexes(folder, signed.manifest), signal);
  const before = await findVersion(state.db, image, version);
  if (before) await changeHurt(state, before, [...chunks.damaged, ...chunks.missing, ...files]);
  return { image, version, ...chunks, files };
};

const verifyChunks = async (state: State, { ids }: VersionIndex, signal: AbortSignal | undefined) => {
  const { damaged, missing } = await checkChunks(state, ids, signal);
  await trustAgain(state, ids, new Set([...damaged, ...missing]));
  return { checked: ids.size, damaged, missing };
};

const trustAgain = async (
  state: State,
  ids: ReadonlySet<string>,
  bad: ReadonlySet<string>,
): Promise<void> => {
  const sound = [...ids].filter((id) => !bad.has(id));
  const suspected = await damagedChunks(state.db, sound);
  for (const id of suspected) {
    await recordChunks(state.db, [{ id, size: (await stat(state.library.store.path(id))).size }]);
  }
  await chunksHealed(state, new Set(sound));
};
