import { hasCode, ImagingError } from '../errors.ts';
import { chunksPerPack } from '../protocol/agent-api.ts';
import type { TransferStats } from '../protocol/task.ts';
import type { Region } from './arena.ts';
import { encodeCaibx } from './caibx.ts';
import type { ChunkSink } from './chunk-store.ts';
import { chunkId } from './codec.ts';
import { type Device, openDevice } from './device.ts';
import type { Extent } from './extent.ts';
import { chunkUsage, type Grid } from './grid.ts';
import { allSettled, createFailure, createLanes } from './lanes.ts';
import { frameLimit } from './limit.ts';
import { LOOK_SECONDS } from './local.ts';
import { type Passes, readInPasses } from './passes.ts';
import type { ChunkPool } from './pool.ts';
import { startTransfer } from './transfer.ts';
import { encodeMap, normaliseExtents } from './used-map.ts';

export interface CaptureOptions {
  /** block device or image file; opened read-only */
  device: string;
  /** bytes from the start of the device: the partition */
  start: number;
  size: number;
  /** what the filesystem uses, from the partition's first byte; everything for a raw partition */
  extents: readonly Extent[];
  chunkSize: number;
  /** zstd level */
  level: number;
  sink: ChunkSink;
  pool: ChunkPool;
  /** the disk turns: one ordered reader */
  rotational?: boolean;
  /** read around what cannot be read: zeros stand for it, and `damaged` of the result says where */
  rescue?: boolean;
  /** reading around bad sectors begins: so many chunks have some */
  onRescue?: (chunks: number) => void;
  /** plain bytes of used chunks that are done with, since the last call */
  onProgress?: (bytes: number) => void;
  signal?: AbortSignal;
}

export interface Captured {
  /** bytes of pN.caibx */
  index: Uint8Array;
  /** bytes of pN.map */
  map: Uint8Array;
  /** every chunk that the index names, each once */
  ids: string[];
  /** used bytes that could not be read, from the partition's first byte; sorted, at most 10,000 ranges */
  damaged: Extent[];
  stats: TransferStats;
}

/** a chunk in memory: plain bytes first, its frame once compressed */
interface Held {
  id: string;
  region: Region;
  /** plain bytes */
  length: number;
  frameLength: number;
  /** the zeros of free space: part of no progress and no count */
  free: boolean;
}

/** requests of each kind under way */
const IN_FLIGHT = 2;
/** as the manifest's schema; near ranges become one where there are more */
const DAMAGED_RANGES = 10_000;

/**
 * Cut a partition into chunks and send those that `sink` lacks. Each used chunk is read once, and the memory
 * that holds it is bounded by the pool's; free space is never read. Resumed by calling it again: what `sink`
 * has already is only read and hashed.
 *
 * @throws ImagingError DISK_READ_FAILED (byte offset and sector in `details`), DISK_NOT_FOUND, and whatever
 *   `sink` throws; the signal's reason when it is aborted
 */
export const captureRange = async (options: CaptureOptions): Promise<Captured> => {
  const { device: path, start, size, chunkSize, sink, pool, onProgress } = options;
  const extents = normaliseExtents(options.extents, size);
  const grid = chunkUsage(extents, chunkSize, size);
  const readers = options.rotational ? 1 : pool.workers * 2;
  const failure = createFailure(options.signal);
  const { signal } = failure;
  const transfer = startTransfer(pool, Math.min(readers, pool.workers));
  const { counts } = transfer;
  counts.bytesUsed = grid.usedBytes;
  counts.chunks = grid.used.length;

  const packSize = Math.min(
    chunksPerPack,
    Math.max(1, Math.floor((pool.arena.size * 0.8) / slotSize(grid) / 4)),
  );
  const reading = createLanes(readers, failure);
  const asking = createLanes(IN_FLIGHT, failure);
  const sending = createLanes(IN_FLIGHT, failure);
  const seen = new Set<string>();
  const live = new Set<Region>();
  const damaged: Extent[] = [];
  let unasked: Held[] = [];
  const unsent: Held[] = [];

  const finished = ({ region, length, free }: Held, reused: boolean): void => {
    region.release();
    live.delete(region);
    if (free) return;
    if (reused) counts.chunksReused += 1;
    onProgress?.(length);
  };

  /** ask which of these are missing; compress those, let go of the others */
  const ask = (): Promise<void> => {
    const batch = unasked;
    unasked = [];
    return asking.enter(async () => {
      const missing = await transfer.network(() =>
        sink.missing(
          batch.map(({ id }) => id),
          signal,
        ),
      );
      for (const held of batch) if (!missing.has(held.id)) finished(held, true);
      const wanted = batch.filter(({ id }) => missing.has(id));
      // all of them, also when one fails: the workers are in this memory
      await allSettled(wanted.map((held) => compress(held)));
      unsent.push(...wanted);
      while (unsent.length >= packSize) await send();
    });
  };

  const compress = async (held: Held): Promise<void> => {
    const { at } = held.region;
    const frame = await pool.run('compress', { at, length: held.length, level: options.level });
    held.frameLength = frame.length;
  };

  const send = (): Promise<void> => {
    const pack = unsent.splice(0, packSize);
    return sending.enter(async () => {
      const chunks = pack.map(({ id, region, frameLength }) => ({
        id,
        frame: region.bytes.subarray(0, frameLength),
      }));
      await transfer.network(() => sink.put(chunks, signal));
      for (const held of pack) {
        counts.bytesSent += held.frameLength;
        finished(held, false);
      }
    });
  };

  /** memory for a chunk; before waiting for it, set everything in motion that gives some back */
  const allocate = async (length: number): Promise<Region> => {
    let region = pool.arena.tryAllocate(frameLimit(length));
    if (!region) {
      if (unasked.length > 0) await ask();
      if (unsent.length > 0) await send();
      region = await pool.arena.allocate(frameLimit(length), signal);
    }
    live.add(region);
    return region;
  };

  const hold = async (held: Held): Promise<void> => {
    if (seen.has(held.id)) {
      finished(held, true);
      return;
    }
    seen.add(held.id);
    unasked.push(held);
    if (unasked.length >= packSize) await ask();
  };

  const placeOf = (source: Device, number: number) => ({
    fd: source.fd,
    position: start + number * chunkSize,
    length: grid.length(number),
    align: source.align,
  });

  const readOne = async (source: Device, ids: string[], number: number, passes?: Passes): Promise<void> => {
    const length = grid.length(number);
    const region = await allocate(length);
    await reading.enter(async () => {
      const job = { ...placeOf(source, number), used: grid.usedOf(number), at: region.at };
      try {
        const lookSeconds = passes ? 0 : LOOK_SECONDS;
        const { id, bytesRead } = await pool.run('hash', { ...job, lookSeconds });
        passes?.succeeded(number);
        ids[number] = id;
        counts.bytesRead += bytesRead;
      } catch (error) {
        if (!passes || !hasCode(error, 'DISK_READ_FAILED')) throw error;
        region.release();
        live.delete(region);
        passes.failed(number);
        return;
      }
      await hold({ id: ids[number] ?? '', region, length, frameLength: 0, free: false });
    });
  };

  const rescueOne = async (source: Device, ids: string[], number: number, seconds: number): Promise<void> => {
    const length = grid.length(number);
    const region = await allocate(length);
    const job = { ...placeOf(source, number), used: grid.usedOf(number), at: region.at };
    const { id, bytesRead, damaged: lost } = await pool.run('rescue', { ...job, seconds });
    signal.throwIfAborted();
    ids[number] = id;
    counts.bytesRead += bytesRead;
    for (const extent of lost) damaged.push({ ...extent, offset: number * chunkSize + extent.offset });
    await hold({ id, region, length, frameLength: 0, free: false });
  };

  const readAll = async (source: Device, ids: string[]): Promise<void> => {
    if (!options.rescue) {
      for (const number of grid.used) await readOne(source, ids, number);
      return;
    }
    const passes = readInPasses({
      start: (number) => readOne(source, ids, number, passes),
      drain: reading.drain,
      rescue: (number, seconds) => rescueOne(source, ids, number, seconds),
      onRescue: (chunks) => options.onRescue?.(chunks),
    });
    await passes.run(grid.used);
    if (damaged.length > 0) await requireAnswer(source, ids);
  };

  /** A disk that is gone fails every read: that is no damage, and no image may come of it. */
  const requireAnswer = async (source: Device, ids: string[]): Promise<void> => {
    const hurt = new Set(damaged.map(({ offset }) => Math.floor(offset / chunkSize)));
    const sound = grid.used.find((number) => !hurt.has(number));
    if (sound === undefined) {
      if (sum(damaged) < sum(extents)) return;
      throw new ImagingError('DISK_READ_FAILED', `Cannot read ${path}: no part of the partition answers`);
    }
    const job = { ...placeOf(source, sound), used: grid.usedOf(sound), at: null, lookSeconds: 0 };
    const { id } = await pool.run('hash', job);
    if (id === ids[sound]) return;
    throw new ImagingError('DISK_READ_FAILED', `Cannot trust ${path}: it returns other bytes than before`, {
      details: { offset: start + sound * chunkSize },
    });
  };

  const device = await openDevice(path, { write: false, start, size, chunkSize });
  try {
    const ids = new Array<string>(grid.count);
    for (const zero of zeroChunks(grid)) {
      const region = await allocate(zero.length);
      region.bytes.fill(0, 0, zero.length);
      for (const number of zero.numbers) ids[number] = zero.id;
      await hold({ id: zero.id, region, length: zero.length, frameLength: 0, free: true });
    }
    await readAll(device, ids);
    await reading.drain();
    if (unasked.length > 0) await ask();
    await asking.drain();
    while (unsent.length > 0) await send();
    await sending.drain();
    const index = encodeCaibx({ chunkSize, size, ids });
    return {
      index,
      map: encodeMap(extents, size),
      ids: [...seen],
      damaged: normaliseExtents(damaged, size, DAMAGED_RANGES),
      stats: transfer.finish(),
    };
  } catch (error) {
    failure.fail(error);
    throw signal.reason;
  } finally {
    await Promise.all([reading.settle(), asking.settle(), sending.settle()]);
    for (const region of live) region.release();
    await device.close();
  }
};

const sum = (extents: readonly Extent[]): number => extents.reduce((all, { length }) => all + length, 0);

const slotSize = (grid: Grid): number => frameLimit(grid.length(0)) + 4096;

/**
 * Unused chunks stand in the index as chunks of zeros, and casync wants those in the store like any other.
 * There are at most two: a whole one, and a short one at the end.
 */
const zeroChunks = (grid: Grid): { id: string; length: number; numbers: number[] }[] => {
  const byLength = new Map<number, number[]>();
  let at = 0;
  for (let number = 0; number < grid.count; number += 1) {
    if (grid.used[at] === number) {
      at += 1;
      continue;
    }
    const length = grid.length(number);
    const numbers = byLength.get(length);
    if (numbers) numbers.push(number);
    else byLength.set(length, [number]);
  }
  return [...byLength].map(([length, numbers]) => ({ id: chunkId(new Uint8Array(length)), length, numbers }));
};
