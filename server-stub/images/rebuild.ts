import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { State } from '../state.ts';
import { recordChunks } from '../store/chunks.ts';
import { allVersions, dropVersion } from '../store/images.ts';
import { enterVersion } from './publish.ts';
import { readIndexes, readVersion, versionFolder, versionFolders } from './version-folder.ts';

/**
 * Bring the database in line with the folders, which are the truth: a version exists if and only if its
 * manifest.json does. A database that was lost knows all images again after this; hosts and tasks it does not.
 *
 * @returns versions that cannot be read, with the reason: they are not served
 */
export const rebuildFromManifests = async (state: State): Promise<{ folder: string; error: unknown }[]> => {
  await recordStoredChunks(state);
  const broken: { folder: string; error: unknown }[] = [];
  const found = new Set<string>();
  const known = new Set((await allVersions(state.db)).map((row) => `${row.image}@${row.version}`));
  for (const { image, version } of await versionFolders(state.paths.images)) {
    const folder = versionFolder(state.paths.images, image, version);
    try {
      const signed = await readVersion(folder);
      if (!signed) continue;
      found.add(`${image}@${version}`);
      if (known.has(`${image}@${version}`)) continue;
      await enterVersion(state, signed.manifest, signed.text, await readIndexes(folder, signed.manifest));
    } catch (error) {
      broken.push({ folder, error });
    }
  }
  for (const { image, version } of await allVersions(state.db)) {
    if (!found.has(`${image}@${version}`)) await dropVersion(state.db, image, version);
  }
  await rm(join(state.paths.chunks, 'tmp'), { recursive: true, force: true });
  return broken;
};

/** Only where the database knows no chunk at all: the one time that all folders are read. */
const recordStoredChunks = async (state: State): Promise<void> => {
  const any = await state.db.selectFrom('chunks').select('id').limit(1).executeTakeFirst();
  if (any) return;
  for (const prefix of await readdir(state.paths.chunks)) {
    if (!/^[0-9a-f]{4}$/.test(prefix)) continue;
    const folder = join(state.paths.chunks, prefix);
    const chunks: { id: string; size: number }[] = [];
    for (const file of await readdir(folder)) {
      const id = /^([0-9a-f]{64})\.cacnk$/.exec(file)?.[1];
      if (id) chunks.push({ id, size: (await stat(join(folder, file))).size });
    }
    await recordChunks(state.db, chunks);
  }
};
