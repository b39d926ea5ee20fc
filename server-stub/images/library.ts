import { ImagingError } from '../../agent/errors.ts';
import { type LocalStore, openLocalStore } from '../../agent/image/local-store.ts';
import { type ChunkPool, createPool } from '../../agent/image/pool.ts';
import { createSharedLock, type SharedLock } from '../lock.ts';
import type { DataPaths } from '../state.ts';
import { MANIFEST, readIndexes, readVersion, type VersionIndex, versionFolder } from './version-folder.ts';

/** The chunk store with what is kept in memory about it. */
export interface Library {
  readonly store: LocalStore;
  /** shared: storing, pinning; exclusive: deleting chunks and publishing */
  readonly lock: SharedLock;
  /** Chunks of a published version; the last few versions are remembered. @throws ImagingError IMAGE_NOT_FOUND */
  indexOf(image: string, version: number): Promise<VersionIndex>;
  forget(image: string, version: number): void;
  close(): Promise<void>;
}

/** bytes of the shared memory in which received chunks wait for a worker */
const POOL_MEMORY = 128 * 1024 * 1024;
const REMEMBERED = 8;

/** Threads start when the first chunk is handled: most of the time a server only waits. */
export const openLibrary = (paths: DataPaths, workers?: number): Library => {
  let pool: ChunkPool | undefined;
  let store: LocalStore | undefined;
  const indexes = new Map<string, Promise<VersionIndex>>();

  const indexOf: Library['indexOf'] = (image, version) => {
    const key = `${image}@${version}`;
    const known = indexes.get(key);
    if (known !== undefined) {
      // most recently used last
      indexes.delete(key);
      indexes.set(key, known);
      return known;
    }
    const read = readIndexOf(paths.images, image, version);
    indexes.set(key, read);
    read.catch(() => indexes.delete(key));
    for (const old of [...indexes.keys()].slice(0, -REMEMBERED)) indexes.delete(old);
    return read;
  };

  return {
    get store() {
      pool ??= createPool({ memory: POOL_MEMORY, ...(workers === undefined ? {} : { workers }) });
      store ??= openLocalStore(paths.chunks, pool);
      return store;
    },
    lock: createSharedLock(),
    indexOf,
    forget: (image, version) => {
      indexes.delete(`${image}@${version}`);
    },
    close: async () => {
      await pool?.close();
    },
  };
};

const readIndexOf = async (images: string, image: string, version: number): Promise<VersionIndex> => {
  const folder = versionFolder(images, image, version);
  const found = await readVersion(folder);
  if (!found) {
    throw new ImagingError('IMAGE_NOT_FOUND', `Cannot read ${image}@${version}: it has no ${MANIFEST}`);
  }
  return readIndexes(folder, found.manifest);
};
