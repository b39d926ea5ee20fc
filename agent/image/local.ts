import { hasCode } from '../errors.ts';
import type { Device } from './device.ts';
import type { Grid } from './grid.ts';
import type { Failure } from './lanes.ts';
import { createLanes } from './lanes.ts';
import type { ChunkPool } from './pool.ts';

/** so long a failed read is looked into, for the person who has the disk; one bad sector may take 10 s */
export const LOOK_SECONDS = 20;

/** What lies on a device where an image lies or should lie. */
export interface LocalRange {
  device: Device;
  /** bytes from the start of the device */
  start: number;
  grid: Grid;
  pool: ChunkPool;
  failure: Failure;
  /** reads at a time; 1 on a rotational disk */
  readers: number;
  /** an unreadable chunk is one that differs (its id is empty), since a write may heal it; else an error */
  tolerant?: boolean;
}

/**
 * Hash these chunks as they lie on the device, what the map calls free counted as zero, and tell each id to
 * `onChunk` as it comes. Returns the bytes read.
 *
 * @throws ImagingError DISK_READ_FAILED, whatever `onChunk` throws, or the reason of the failure's signal
 */
export const hashLocal = async (
  range: LocalRange,
  numbers: Iterable<number>,
  onChunk: (number: number, id: string) => void,
): Promise<number> => {
  const { device, start, grid, pool, failure, readers } = range;
  const lanes = createLanes(readers, failure);
  let bytes = 0;
  try {
    for (const number of numbers) {
      await lanes.enter(async () => {
        const length = grid.length(number);
        const place = {
          fd: device.fd,
          position: start + number * grid.chunkSize,
          length,
          align: device.align,
        };
        try {
          const used = grid.usedOf(number);
          const lookSeconds = range.tolerant ? 0 : LOOK_SECONDS;
          const { id, bytesRead } = await pool.run('hash', { ...place, used, at: null, lookSeconds });
          bytes += bytesRead;
          onChunk(number, id);
        } catch (error) {
          if (!range.tolerant || !hasCode(error, 'DISK_READ_FAILED')) throw error;
          onChunk(number, '');
        }
      });
    }
    await lanes.drain();
  } finally {
    await lanes.settle();
  }
  return bytes;
};

/** `count` of these, spread evenly, the first and the last among them. */
export const spread = (numbers: readonly number[], count: number): number[] => {
  if (numbers.length <= count) return [...numbers];
  const step = (numbers.length - 1) / (count - 1);
  return Array.from({ length: count }, (_, at) => numbers[Math.round(at * step)] ?? 0);
};
