import type { Device } from './device.ts';
import { type ChunkRange, rangesOf } from './durable.ts';
import type { Grid } from './grid.ts';
import type { Failure } from './lanes.ts';

export interface FlusherOptions {
  device: Device;
  grid: Grid;
  /** plain bytes that may be on their way to the device or in its cache at a time: what a power cut takes away */
  atRisk: number;
  onDurable?: ((ranges: ChunkRange[]) => void | Promise<void>) | undefined;
  failure: Failure;
}

/** Which chunks are on the disk, and which of them a power cut can no longer take away. */
export interface Flusher {
  /** Wait until so many bytes more may be written; each reservation ends by `placed` and the flush behind it. */
  reserve(bytes: number): Promise<void>;
  /** This chunk's bytes lie on the device. `bytes` of what was reserved. Starts a flush when enough have come together. */
  placed(number: number, bytes: number): void;
  isPlaced(number: number): boolean;
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
  const { device, grid, atRisk, onDurable, failure } = options;
  const state = new Uint8Array(grid.count);
  for (const number of durable) state[number] = DURABLE;
  let unflushed: number[] = [];
  let unflushedBytes = 0;
  /** reserved and not yet told to be durable */
  let reserved = 0;
  /** flushed, and not yet told: what is not known to be durable counts as at risk */
  let unreportedBytes = 0;
  /** flushes that ended, and the last of them that was told */
  let unreported = 0;
  let reported = 0;
  let underWay: Promise<void> | undefined;
  let reporting: Promise<void> | undefined;
  let changed = Promise.withResolvers<void>();

  const wake = (): void => {
    changed.resolve();
    changed = Promise.withResolvers();
  };
  failure.signal.addEventListener('abort', wake, { once: true });

  const flush = async (): Promise<void> => {
    const [numbers, bytes] = [unflushed, unflushedBytes];
    unflushed = [];
    unflushedBytes = 0;
    await device.flush();
    for (const number of numbers) state[number] = DURABLE;
    unreportedBytes += bytes;
    unreported += 1;
    reporting ??= report()
      .catch((error) => failure.fail(error))
      .finally(() => {
        reporting = undefined;
        wake();
      });
  };

  /** One report at a time, of the newest state; flushes go on behind a slow one, as far as `atRisk` allows. */
  const report = async (): Promise<void> => {
    for (let isNew = true; isNew; isNew = unreported !== reported) {
      const [bytes, turn] = [unreportedBytes, unreported];
      unreportedBytes = 0;
      await onDurable?.(ranges());
      reported = turn;
      reserved -= bytes;
      wake();
    }
  };

  const start = (): Promise<void> => {
    underWay ??= flush()
      .catch((error) => failure.fail(error))
      .finally(() => {
        underWay = undefined;
        wake();
      });
    return underWay;
  };

  const ranges = (): ChunkRange[] => rangesOf(grid, (number) => state[number] === DURABLE);

  const reserve = async (bytes: number): Promise<void> => {
    failure.check();
    while (reserved > 0 && reserved + bytes > atRisk) {
      if (unflushed.length > 0) void start();
      await changed.promise;
      failure.check();
    }
    reserved += bytes;
  };

  const placed = (number: number, bytes: number): void => {
    if (state[number] !== PENDING) return;
    state[number] = PLACED;
    unflushed.push(number);
    unflushedBytes += bytes;
    // one half is flushed while the other is written
    if (unflushedBytes >= atRisk / 2) void start();
    wake();
  };

  const finish = async (): Promise<ChunkRange[]> => {
    while (underWay || unflushed.length > 0) await start();
    await reporting;
    failure.check();
    return ranges();
  };

  const settle = async (): Promise<void> => {
    await underWay;
    await reporting;
  };

  return { reserve, placed, isPlaced: (number) => state[number] !== PENDING, finish, settle };
};
