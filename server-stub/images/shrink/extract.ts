import { type FileHandle, open } from 'node:fs/promises';
import { decodeCaibx } from '../../../agent/image/caibx.ts';
import { chunkUsage } from '../../../agent/image/grid.ts';
import { createFailure, createLanes } from '../../../agent/image/lanes.ts';
import type { LocalStore } from '../../../agent/image/local-store.ts';
import type { ChunkPool } from '../../../agent/image/pool.ts';
import { decodeMap } from '../../../agent/image/used-map.ts';

export interface ExtractOptions {
  store: LocalStore;
  pool: ChunkPool;
  /** bytes of pN.caibx and pN.map */
  index: Uint8Array;
  map: Uint8Array;
  /** a new file: the partition, with holes where its filesystem uses nothing */
  file: string;
  /** plain bytes written since the last call */
  onProgress: (bytes: number) => void;
  signal: AbortSignal;
}

/**
 * A partition's used chunks from the store into a sparse file of the partition's size, every one checked.
 * Not flushed: it is thrown away if the machine fails.
 *
 * @throws ImagingError CHUNK_CORRUPT, CHUNK_MISSING, DISK_WRITE_FAILED
 */
export const extractPartition = async (options: ExtractOptions): Promise<void> => {
  const { store, pool, onProgress } = options;
  const { ids, chunkSize } = decodeCaibx(options.index);
  const { extents, size } = decodeMap(options.map);
  const grid = chunkUsage(extents, chunkSize, size);
  const failure = createFailure(options.signal);
  const lanes = createLanes(pool.workers * 2, failure);
  await using file: FileHandle = await open(options.file, 'wx', 0o600);
  await file.truncate(size);
  try {
    for (const number of grid.used) {
      const id = ids[number] ?? '';
      const length = grid.length(number);
      await lanes.enter(async () => {
        const positions = [number * chunkSize];
        await pool.run('write', {
          frame: { path: store.path(id) },
          id,
          length,
          fd: file.fd,
          align: 1,
          positions,
        });
        onProgress(length);
      });
    }
    await lanes.drain();
  } finally {
    // the descriptor's number must not be closed under a worker
    await lanes.settle();
  }
};
