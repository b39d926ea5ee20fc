import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ImagingError } from '../../agent/errors.ts';
import type { TaskParams } from '../../agent/protocol/index.ts';
import type { State } from '../state.ts';
import { forgetChunks } from '../store/chunks.ts';
import { derivedVersions, dropVersion, findVersion } from '../store/images.ts';
import { syncPath } from './durable.ts';
import { MANIFEST, readVersion, versionFolder, versionFolders } from './version-folder.ts';

/** files deleted at a time */
const UNLINKS = 64;

/**
 * Delete a version, and with it the smaller ones that were made from it. Chunks that no version needs are swept
 * by `collectChunks`.
 *
 * @throws ImagingError IMAGE_NOT_FOUND, CONFLICT (a task that has not ended deploys it or may deploy it, a smaller
 *   version is being made from it); nothing is removed then
 */
export const removeVersion = async (state: State, image: string, version: number): Promise<void> => {
  const found = await findVersion(state.db, image, version);
  if (!found) {
    throw new ImagingError('IMAGE_NOT_FOUND', `Cannot remove ${image}@${version}: no such version`);
  }
  const derived = (await derivedVersions(state.db, image, version)).map((row) => row.version);
  if (state.shrinks.isSource(image, version)) {
    throw new ImagingError(
      'CONFLICT',
      `Cannot remove ${image}@${version}: a smaller version is being made from it`,
    );
  }
  // a deploy of the version that a smaller one comes from may be writing the smaller one
  const used = new Set([version, ...derived, ...(found.derivedFrom === null ? [] : [found.derivedFrom])]);
  const user = state.board.open().find(({ row }) => {
    const params = row.params as TaskParams<'deploy'>;
    return row.type === 'deploy' && params.image === image && used.has(params.version);
  });
  if (user) {
    throw new ImagingError('CONFLICT', `Cannot remove ${image}@${version}: task ${user.row.id} deploys it`);
  }
  for (const number of [...derived, version]) await deleteVersion(state, image, number);
};

/** The manifest first, which ends the version's existence, then the rest. */
const deleteVersion = async (state: State, image: string, version: number): Promise<void> => {
  const folder = versionFolder(state.paths.images, image, version);
  await rm(join(folder, MANIFEST), { force: true });
  await syncPath(folder);
  await dropVersion(state.db, image, version);
  state.library.forget(image, version);
  await rm(folder, { recursive: true, force: true });
  state.announce({ kind: 'image', subject: image, data: { version, what: 'removed' } });
};

/**
 * Mark and sweep: delete the chunks that no version needs and no open upload has pinned.
 * The folders are asked, not the database: while any version cannot be read, nothing is deleted.
 *
 * @returns how many, and bytes of their files
 * @throws ImagingError IMAGE_INVALID
 */
export const collectChunks = (state: State): Promise<{ chunks: number; bytes: number }> =>
  state.library.lock.exclusive(async () => {
    const needed = new Set<string>();
    for (const { image, version } of await versionFolders(state.paths.images)) {
      const signed = await readVersion(versionFolder(state.paths.images, image, version));
      if (!signed) continue;
      for (const id of (await state.library.indexOf(image, version)).ids) needed.add(id);
    }
    const pins = await state.db
      .selectFrom('upload_pins')
      .innerJoin('uploads', 'uploads.id', 'upload_pins.upload_id')
      .select('chunk_id')
      .where('uploads.state', '=', 'open')
      .execute();
    for (const { chunk_id } of pins) needed.add(chunk_id);
    const stored = await state.db.selectFrom('chunks').select(['id', 'size']).execute();
    const spare = stored.filter(({ id }) => !needed.has(id));
    // the rows go first: a chunk that is listed must be there
    await forgetChunks(
      state.db,
      spare.map(({ id }) => id),
    );
    for (let at = 0; at < spare.length; at += UNLINKS) {
      await Promise.all(spare.slice(at, at + UNLINKS).map(({ id }) => state.library.store.remove(id)));
    }
    return { chunks: spare.length, bytes: spare.reduce((sum, { size }) => sum + size, 0) };
  });
