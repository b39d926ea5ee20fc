import { randomInt } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';
import { decodeCaibx } from './caibx.ts';
import { type Device, openDevice } from './device.ts';
import { chunkUsage } from './grid.ts';
import { createFailure } from './lanes.ts';
import { hashLocal } from './local.ts';
import type { ChunkPool } from './pool.ts';
import { decodeMap } from './used-map.ts';

export interface ReadBackOptions {
  device: string;
  /** bytes from the start of the device */
  start: number;
  /** bytes of pN.caibx and pN.map */
  index: Uint8Array;
  map: Uint8Array;
  chunkSize: number;
  /** `sample`: the first and last used chunk, and 5 % of the others (at least 32) at random */
  mode: 'sample' | 'full';
  pool: ChunkPool;
  rotational?: boolean;
  /** bytes read back, since the last call */
  onProgress?: (bytes: number) => void;
  /** a random whole number below its argument */
  random?: (below: number) => number;
  signal?: AbortSignal;
}

const SAMPLE_SHARE = 0.05;
const SAMPLE_LEAST = 32;

/**
 * Read chunks back from the medium, not from the page cache, and compare their hashes with the index. Only
 * before anything has changed the filesystem (growing it, a new UUID).
 *
 * @throws ImagingError READ_BACK_MISMATCH with the byte offset, DISK_READ_FAILED, IMAGE_INVALID
 */
export const readBack = async (options: ReadBackOptions): Promise<{ chunks: number; bytes: number }> => {
  const { start, chunkSize, pool, mode, onProgress, random = randomInt } = options;
  const { ids, size } = decodeCaibx(options.index);
  const { extents } = decodeMap(options.map);
  const grid = chunkUsage(extents, chunkSize, size);
  const numbers = mode === 'full' ? grid.used : sampleOf(grid.used, random);
  const failure = createFailure(options.signal);
  const device = await openDevice(options.device, { write: false, start, size, chunkSize });
  try {
    if (!device.direct) await dropCache(device, options.signal);
    const readers = options.rotational ? 1 : pool.workers * 2;
    const range = { device, start, grid, pool, failure, readers };
    const bytes = await hashLocal(range, numbers, (number, id) => {
      const offset = start + number * chunkSize;
      if (ids[number] !== id) throw mismatch(options.device, offset, ids[number], id);
      onProgress?.(grid.length(number));
    });
    return { chunks: numbers.length, bytes };
  } finally {
    await device.close();
  }
};

const sampleOf = (used: readonly number[], random: (below: number) => number): number[] => {
  const count = Math.max(SAMPLE_LEAST, Math.ceil(used.length * SAMPLE_SHARE));
  if (used.length <= count + 2) return [...used];
  const chosen = new Set([used[0] ?? 0, used.at(-1) ?? 0]);
  while (chosen.size < count + 2) chosen.add(used[random(used.length)] ?? 0);
  return [...chosen].toSorted((a, b) => a - b);
};

/** Without O_DIRECT the kernel must forget what it holds, or we would compare its memory with itself. */
const dropCache = async ({ path }: Device, signal: AbortSignal | undefined): Promise<void> => {
  const options = signal ? { signal } : {};
  if ((await stat(path)).isBlockDevice()) await run('blockdev', ['--flushbufs', path], options);
  // coreutils: `nocache` with count=0 asks the kernel to drop the cache of the whole file
  else await run('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none'], options);
};

const mismatch = (device: string, offset: number, wanted: string | undefined, found: string): ImagingError =>
  new ImagingError(
    'READ_BACK_MISMATCH',
    `Cannot prove what was written: ${device} returns other bytes at ${offset}`,
    {
      details: { device, offset, wanted: wanted ?? null, found },
    },
  );
