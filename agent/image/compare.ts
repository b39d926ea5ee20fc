import { ImagingError } from '../errors.ts';
import { decodeCaibx } from './caibx.ts';
import { openDevice } from './device.ts';
import { type ChunkRange, rangesOf } from './durable.ts';
import type { Extent } from './extent.ts';
import { chunkUsage } from './grid.ts';
import { createFailure } from './lanes.ts';
import { hashLocal } from './local.ts';
import type { ChunkPool } from './pool.ts';
import { decodeMap } from './used-map.ts';

export interface CompareOptions {
  device: string;
  /** bytes from the start of the device: where the partition's content should lie */
  start: number;
  /** bytes of pN.caibx and pN.map, already checked against the manifest */
  index: Uint8Array;
  map: Uint8Array;
  chunkSize: number;
  /** what the image lacks, from the partition's first byte: chunks that it touches are left out */
  damaged?: readonly Extent[];
  pool: ChunkPool;
  rotational?: boolean;
  /** bytes compared, since the last call */
  onProgress?: (bytes: number) => void;
  signal?: AbortSignal;
}

export interface Comparison {
  /** used chunks: the sum of the four below */
  chunks: number;
  same: number;
  different: number;
  unreadable: number;
  leftOut: number;
  /** chunk numbers that differ or cannot be read, with unused chunks between two of them counted in */
  ranges: ChunkRange[];
  chunkSize: number;
}

/**
 * Compare what lies on a device with a partition of an image, past the page cache where the device allows: used chunks
 * only, and of them only what the filesystem used at capture. Opens the device read-only.
 *
 * @throws ImagingError IMAGE_INVALID, DISK_NOT_FOUND, DISK_READ_FAILED (the device is too small, or fails as a whole)
 */
export const compareRange = async (options: CompareOptions): Promise<Comparison> => {
  const { start, chunkSize, pool, onProgress } = options;
  const { ids, size, chunkSize: indexed } = decodeCaibx(options.index);
  const { extents, size: mapped } = decodeMap(options.map);
  if (indexed !== chunkSize || size !== mapped) {
    throw new ImagingError('IMAGE_INVALID', 'Cannot compare: index, map and manifest do not fit together');
  }
  const grid = chunkUsage(extents, chunkSize, size);
  const holes = new Set(chunkUsage(options.damaged ?? [], chunkSize, size).used);
  const numbers = grid.used.filter((number) => !holes.has(number));
  const off = new Set<number>();
  const counts = { same: 0, different: 0, unreadable: 0 };
  const failure = createFailure(options.signal);
  const device = await openDevice(options.device, { write: false, start, size, chunkSize });
  try {
    const readers = options.rotational ? 1 : pool.workers * 2;
    const range = { device, start, grid, pool, failure, readers, tolerant: true };
    await hashLocal(range, numbers, (number, id) => {
      const found = id === '' ? 'unreadable' : id === ids[number] ? 'same' : 'different';
      counts[found] += 1;
      if (found !== 'same') off.add(number);
      onProgress?.(grid.length(number));
    });
  } finally {
    await device.close();
  }
  return {
    chunks: grid.used.length,
    ...counts,
    leftOut: grid.used.length - numbers.length,
    ranges: rangesOf(grid, (number) => off.has(number)),
    chunkSize,
  };
};
