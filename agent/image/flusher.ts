import type { Device } from './device.ts';
import { type ChunkRange, rangesOf } from './durable.ts';
import type { Grid } from './grid.ts';
import type { Failure } from './lanes.ts';

export interface FlusherOptions {
  device: Device;
  grid: Grid;
  /** plain bytes between two flushes */
  flushBytes: number;
  onDurable?: ((ranges: ChunkRange[]) => void | Promise<void>) | undefined;
  failure: Failure;
}

/** Which chunks are on the disk, and which of them a power cut can no longer take away. */
export interface Flusher {
  /** This chunk's bytes lie on the device. Starts a flush when enough have come together. */
  placed(number: number, bytes: number): void;
  isPlaced(number: number): boolean;
  /** Waits while a flush is under way and twice as much has been written behind it. */
  room(): Promise<void>;
  /** Flush what is left and report; resolves when that is done. */
  finish(): Promise<ChunkRange[]>;
  /** Wait for a flush under way, whatever its end. */
  settle(): Promise<void>;
}

const PENDING = 0;
const PLACED = 1;
const DURABLE = 2;

/**
 * Flush a device as chunks come, and report what is durable only after the flush that made it so. `durable`:
 * chunks that were already.
 */
export const createFlusher = (options: FlusherOptions, durable: Iterable<number> = []): Flusher => {
  const { device, grid, flushBytes, onDurable, failure } = options;
  const state = new Uint8Array(grid.count);
  for (const number of durable) state[number] = DURABLE;
  let unflushed: number[] = [];
  let unflushedBytes = 0;
  let underWay: Promise<void> | undefined;

  const flush = async (): Promise<void> => {
    const numbers = unflushed;
    unflushed = [];
    unflushedBytes = 0;
    await device.flush();
    for (const number of numbers) state[number] = DURABLE;
    await onDurable?.(ranges());
  };

  const start = (): Promise<void> => {
    underWay ??= flush()
      .catch((error) => failure.fail(error))
      .finally(() => {
        underWay = undefined;
      });
    return underWay;
  };

  const ranges = (): ChunkRange[] => rangesOf(grid, (number) => state[number] === DURABLE);

  const placed = (number: number, bytes: number): void => {
    if (state[number] !== PENDING) return;
    state[number] = PLACED;
    unflushed.push(number);
    unflushedBytes += bytes;
    if (unflushedBytes >= flushBytes) void start();
  };

  const room = async (): Promise<void> => {
    while (underWay && unflushedBytes >= 2 * flushBytes) await underWay;
    failure.check();
  };

  const finish = async (): Promise<ChunkRange[]> => {
    while (underWay || unflushed.length > 0) await start();
    failure.check();
    return ranges();
  };

  const settle = async (): Promise<void> => {
    await underWay;
  };

  return { placed, isPlaced: (number) => state[number] !== PENDING, room, finish, settle };
};
