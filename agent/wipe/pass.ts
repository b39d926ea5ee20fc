import { existsSync } from 'node:fs';
import { ImagingError, toImagingError } from '../errors.ts';
import type { Device } from '../image/device.ts';
import type { Extent } from '../image/extent.ts';
import { createFailure, createLanes } from '../image/lanes.ts';
import type { ChunkPool } from '../image/pool.ts';
import { joined } from '../image/read-around.ts';
import type { ByteRange } from '../protocol/index.ts';
import { blocksOf } from './plan.ts';

/** One write: long enough for every disk's full speed, short enough that a cancel waits for nothing. */
export const BLOCK = 1024 * 1024;
/** a block whose sectors fail, each for seconds, is given up after this time; what was not tried counts as not done */
const BLOCK_SECONDS = 20;
/** a disk that takes nothing any more is dead */
const DEAD_SECONDS = 60;

export interface PassOptions {
  device: Device;
  /** of this disk alone: a dying disk holds its threads up, and nobody else's */
  pool: ChunkPool;
  ranges: readonly ByteRange[];
  /** of pattern.ts */
  key: string | null;
  onProgress?: (bytes: number) => void;
  signal?: AbortSignal;
  /** time without a byte written after which the disk is dead, for tests */
  deadSeconds?: number;
}

export interface Overwritten {
  /** bytes that the disk took */
  written: number;
  /** what could not be overwritten, sorted */
  missed: Extent[];
  /** why the rest was not tried: the disk is dead */
  stopped: ImagingError | null;
}

/**
 * Write a pass and make it durable. Write errors do not end it: what could not be overwritten is returned, and so is everything
 * behind the place where the disk died.
 *
 * @throws ImagingError TASK_CANCELLED; DISK_WRITE_FAILED (the last flush)
 */
export const overwrite = async (options: PassOptions): Promise<Overwritten> => {
  const { device, pool, key, onProgress, deadSeconds = DEAD_SECONDS } = options;
  const missed: Extent[] = [];
  let written = 0;
  let alive = performance.now();
  const tried = async ({ start, size }: ByteRange): Promise<void> => {
    const job = { ...placeOf(device, start, size), key, seconds: Math.min(BLOCK_SECONDS, deadSeconds) };
    const failed = (await pool.run('overwrite', job)).missed;
    missed.push(...failed);
    const bytes = size - failed.reduce((sum, { length }) => sum + length, 0);
    written += bytes;
    if (bytes > 0) alive = performance.now();
    else if (!existsSync(device.path)) throw gone(device.path);
    else if (performance.now() - alive > deadSeconds * 1000) throw dead(device.path, deadSeconds);
    onProgress?.(size);
  };
  const stopped = await eachBlock(options, tried, ({ start, size }) =>
    missed.push({ offset: start, length: size }),
  );
  if (!stopped) await device.flush();
  return { written, missed: joined(missed), stopped };
};

export interface Compared {
  /** bytes that were read and are the pattern's */
  bytes: number;
  different: Extent[];
  unreadable: Extent[];
}

/**
 * Read ranges back past the cache and compare them with the pass that was written there.
 *
 * @throws ImagingError TASK_CANCELLED, DISK_READ_FAILED (the device fails as a whole)
 */
export const compare = async (options: PassOptions): Promise<Compared> => {
  const { device, pool, key, onProgress } = options;
  const different: Extent[] = [];
  const unreadable: Extent[] = [];
  let bytes = 0;
  const stopped = await eachBlock(options, async ({ start, size }) => {
    const job = { ...placeOf(device, start, size), key, seconds: BLOCK_SECONDS };
    const found = await pool.run('compare', job);
    different.push(...found.different);
    unreadable.push(...found.unreadable);
    bytes += [...found.different, ...found.unreadable].reduce((left, { length }) => left - length, size);
    onProgress?.(size);
  });
  if (stopped) throw stopped;
  return { bytes, different: joined(different), unreadable: joined(unreadable) };
};

/**
 * Work through all blocks, as many at a time as the pool takes; `skipped` hears of those that a failure kept from being done.
 * Returns that failure; a cancel is thrown.
 */
const eachBlock = async (
  { ranges, pool, signal }: PassOptions,
  work: (block: ByteRange) => Promise<void>,
  skipped: (rest: ByteRange) => void = () => undefined,
): Promise<ImagingError | null> => {
  const failure = createFailure(signal);
  const lanes = createLanes(pool.workers * 2, failure);
  const attempt = async (block: ByteRange): Promise<void> => {
    try {
      await work(block);
    } catch (error) {
      skipped(block);
      throw error;
    }
  };
  const blocks = blocksOf(ranges, BLOCK);
  /** where the next block begins that nobody has begun */
  let reached = ranges[0]?.start ?? 0;
  try {
    for (const block of blocks) {
      reached = block.start;
      await lanes.enter(() => attempt(block));
      reached = block.start + block.size;
    }
    await lanes.drain();
    return null;
  } catch (error) {
    await lanes.settle();
    if (signal?.aborted) {
      throw new ImagingError('TASK_CANCELLED', 'Cannot finish the wipe: cancelled', { cause: signal.reason });
    }
    for (const rest of behind(ranges, reached)) skipped(rest);
    return toImagingError(error);
  }
};

/** What of these sorted ranges lies at or behind `from`. */
const behind = (ranges: readonly ByteRange[], from: number): ByteRange[] =>
  ranges.flatMap(({ start, size }) => {
    const first = Math.max(start, from);
    return first < start + size ? [{ start: first, size: start + size - first }] : [];
  });

const placeOf = ({ fd, align }: Device, start: number, size: number) => ({
  ...{ fd, align },
  position: start,
  length: size,
});

/** Writes to a disk that was pulled out fail as those to bad sectors do (Linux 6.12, USB): only its node tells the two apart. */
const gone = (path: string): ImagingError =>
  new ImagingError('DISK_WRITE_FAILED', `Cannot go on with ${path}: it is gone`, { details: { path } });

const dead = (path: string, seconds: number): ImagingError =>
  new ImagingError('DISK_WRITE_FAILED', `Cannot go on with ${path}: it took nothing for ${seconds} s`, {
    details: { path },
  });
