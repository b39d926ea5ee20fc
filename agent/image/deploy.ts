import { ImagingError } from '../errors.ts';
import { chunksPerPack } from '../protocol/agent-api.ts';
import type { TransferStats } from '../protocol/task.ts';
import { decodeCaibx } from './caibx.ts';
import type { ChunkSource, StoredChunk } from './chunk-store.ts';
import { chunkId, compressFrame } from './codec.ts';
import { openDevice } from './device.ts';
import { type ChunkRange, chunksIn } from './durable.ts';
import { createFlusher, type Flusher } from './flusher.ts';
import { chunkUsage, type Grid } from './grid.ts';
import type { FrameAt } from './job.ts';
import { createFailure, createLanes } from './lanes.ts';
import { frameLimit } from './limit.ts';
import { hashLocal, type LocalRange, spread } from './local.ts';
import type { ChunkPool } from './pool.ts';
import { startTransfer, type Transfer } from './transfer.ts';
import { decodeMap } from './used-map.ts';

export interface DeployOptions {
  /** block device (opened exclusively) or image file */
  device: string;
  /** bytes from the start of the device: where the partition's content goes */
  start: number;
  /** bytes of pN.caibx and pN.map, already checked against the manifest */
  index: Uint8Array;
  map: Uint8Array;
  chunkSize: number;
  source: ChunkSource;
  pool: ChunkPool;
  /** what a former attempt reported by onDurable, for the same version, plan and disk */
  durable?: readonly (readonly [number, number])[];
  /**
   * Whether the target may hold parts of the image: `sample` looks at a few chunks and hashes the rest only if
   * some match (default), `all` hashes every used chunk, `none` fetches without looking
   */
  compare?: 'sample' | 'all' | 'none';
  /** used bytes of the whole image that this partition belongs to; default: it is alone */
  imageBytes?: number;
  /** the disk turns: one request at a time, and writes begin in the order of the disk */
  rotational?: boolean;
  /** plain bytes of used chunks that are on the disk, since the last call */
  onProgress?: (bytes: number) => void;
  /** chunks that a power cut can no longer take away; one call at a time, the newest state */
  onDurable?: (ranges: ChunkRange[]) => void | Promise<void>;
  /** name for error details: `p1` */
  partition?: string;
  signal?: AbortSignal;
}

export interface Deployed {
  stats: TransferStats;
  /** all used chunks, as the last onDurable reported them */
  ranges: ChunkRange[];
}

const MIB = 1024 * 1024;
/** chunks looked at to decide whether comparing pays, and to trust a former attempt */
const SAMPLE = 64;
/** this share of the sample must match: below it, hashing all costs more than it saves */
const WORTH_COMPARING = 1 / 16;
const REQUESTS = 2;
/** chunks of zeros that are written by one job */
const ZEROS = 16;

/**
 * Write a partition's used chunks to a device. Chunks that lie there already are not fetched; no byte is
 * written that has not been checked against its id; unused chunks are left as they are.
 *
 * @throws ImagingError IMAGE_INVALID (index, map and chunk size disagree), CHUNK_CORRUPT, CHUNK_MISSING,
 *   DISK_IN_USE, DISK_WRITE_FAILED with the offset; whatever `source` and `onDurable` throw;
 *   the signal's reason when it is aborted
 */
export const deployRange = async (options: DeployOptions): Promise<Deployed> => {
  const { start, chunkSize, pool, onProgress } = options;
  const { ids, grid } = readImage(options);
  const failure = createFailure(options.signal);
  const transfer = startTransfer(pool);
  const { counts } = transfer;
  counts.bytesUsed = grid.usedBytes;
  counts.chunks = grid.used.length;

  const device = await openDevice(options.device, { write: true, start, size: grid.size, chunkSize });
  const readers = options.rotational ? 1 : pool.workers * 2;
  const range: LocalRange = { device, start, grid, pool, failure, readers, tolerant: true };
  let flusher: Flusher | undefined;
  try {
    const trusted = await trustDurable(options, range, ids, transfer);
    const atRisk = bytesAtRisk(options.imageBytes ?? grid.usedBytes, chunkSize, pool.workers);
    flusher = createFlusher({ device, grid, atRisk, onDurable: options.onDurable, failure }, trusted);
    const progress = (number: number): void => onProgress?.(grid.length(number));
    for (const number of trusted) progress(number);
    counts.chunksReused += trusted.length;
    await compareLocal(options, range, ids, flusher, transfer, progress);
    await fetchRest(options, range, ids, flusher, transfer, progress);
    const ranges = await flusher.finish();
    return { stats: transfer.finish(), ranges };
  } catch (error) {
    failure.fail(error);
    throw named(failure.signal.reason, options.partition);
  } finally {
    await flusher?.settle();
    await device.close();
  }
};

const readImage = ({ index, map, chunkSize }: DeployOptions): { ids: string[]; grid: Grid } => {
  const { ids, size, chunkSize: indexed } = decodeCaibx(index);
  const { extents, size: mapped } = decodeMap(map);
  if (indexed !== chunkSize || size !== mapped) {
    throw new ImagingError('IMAGE_INVALID', 'Cannot deploy: index, map and manifest do not fit together', {
      details: { chunkSize, indexChunkSize: indexed, indexSize: size, mapSize: mapped },
    });
  }
  return { ids, grid: chunkUsage(extents, chunkSize, size) };
};

/**
 * What a power cut may take away, of the image: a chunk for each worker and 1.5 %. Yet a flush costs an HDD some 20 ms
 * and its report a way to the server and back, so the small share is not made smaller, nor is more than 256 MiB waited
 * for at a time.
 */
const bytesAtRisk = (imageBytes: number, chunkSize: number, workers: number): number =>
  workers * chunkSize + Math.min(256 * MIB, Math.floor(imageBytes * 0.015));

/** The chunks of a former attempt, if a sample of them is really there; one mismatch makes all void. */
const trustDurable = async (
  { durable = [] }: DeployOptions,
  range: LocalRange,
  ids: readonly string[],
  { counts }: Transfer,
): Promise<number[]> => {
  const claimed = chunksIn(durable, range.grid);
  let isTrue = true;
  counts.bytesRead += await hashLocal(range, spread(claimed, SAMPLE), (number, id) => {
    if (ids[number] !== id) isTrue = false;
  });
  return isTrue ? claimed : [];
};

/** Find the used chunks that lie on the device already. */
const compareLocal = async (
  { compare = 'sample' }: DeployOptions,
  range: LocalRange,
  ids: readonly string[],
  flusher: Flusher,
  { counts }: Transfer,
  progress: (number: number) => void,
): Promise<void> => {
  const { grid } = range;
  if (compare === 'none') return;
  const open = grid.used.filter((number) => !flusher.isPlaced(number));
  const found = (number: number, id: string): void => {
    if (ids[number] !== id || flusher.isPlaced(number)) return;
    // it may lie in the disk's own cache only, so it is not durable before the next flush
    flusher.placed(number, 0);
    counts.chunksReused += 1;
    progress(number);
  };
  if (compare === 'sample') {
    // a blank disk holds zeros, which says nothing about this image
    const zeros = new Set([chunkId(new Uint8Array(grid.length(0)))]);
    const sample = spread(
      open.filter((number) => !zeros.has(ids[number] ?? '')),
      SAMPLE,
    );
    const before = counts.chunksReused;
    counts.bytesRead += await hashLocal(range, sample, found);
    if (counts.chunksReused - before <= sample.length * WORTH_COMPARING) return;
  }
  const rest = open.filter((number) => !flusher.isPlaced(number));
  counts.bytesRead += await hashLocal(range, rest, found);
};

const fetchRest = async (
  options: DeployOptions,
  range: LocalRange,
  ids: readonly string[],
  flusher: Flusher,
  transfer: Transfer,
  progress: (number: number) => void,
): Promise<void> => {
  const { source, pool, rotational } = options;
  const { device, start, grid, failure } = range;
  const { counts } = transfer;
  const wanted = placesById(grid, ids, (number) => !flusher.isPlaced(number));
  const writing = createLanes(pool.workers * 2, failure);

  // zeros need no source; each place is written when its turn comes, since a disk that turns would go there and back
  const zero = zeroFrame(grid);
  const zeros = wanted.get(zero.id) ?? [];
  wanted.delete(zero.id);
  const zeroRegion = await pool.hold(zero.frame, failure.signal);
  let zerosDone = 0;

  const writeZeros = async (before: number): Promise<void> => {
    for (;;) {
      let end = zerosDone;
      while (end - zerosDone < ZEROS && (zeros[end] ?? before) < before) end += 1;
      const numbers = zeros.slice(zerosDone, end);
      zerosDone = end;
      if (numbers.length === 0) return;
      await reserve(numbers);
      const frame = { at: zeroRegion.at, length: zero.frame.length };
      await writing.enter(async () => {
        await write(zero.id, numbers, frame);
        counts.bytesReceived -= zero.frame.length;
      });
    }
  };

  const reserve = (numbers: readonly number[]): Promise<void> => {
    const bytes = numbers.reduce((sum, number) => sum + grid.length(number), 0);
    return pool.waiting('write', () => flusher.reserve(bytes));
  };

  const write = async (id: string, numbers: readonly number[], frame: FrameAt): Promise<void> => {
    const [first = 0] = numbers;
    const length = grid.length(first);
    const positions = numbers.map((number) => start + number * grid.chunkSize);
    const place = { fd: device.fd, align: device.align, positions };
    const { frameLength } = await pool.run('write', { frame, id, length, ...place });
    counts.bytesReceived += frameLength;
    counts.bytesWritten += length * numbers.length;
    for (const number of numbers) {
      flusher.placed(number, length);
      progress(number);
    }
  };

  /** Once there is room for the chunk at all its places, `work` in a lane. */
  const enter = async (id: string, work: (numbers: readonly number[]) => Promise<void>): Promise<void> => {
    const numbers = wanted.get(id);
    if (!numbers) return;
    wanted.delete(id);
    await writeZeros(numbers[0] ?? 0);
    await reserve(numbers);
    await writing.enter(() => work(numbers));
  };

  /** copy into shared memory here, everything else in a worker */
  const receive = async ({ id, frame }: StoredChunk): Promise<void> => {
    if (frame.length > frameLimit(grid.chunkSize)) {
      const reason = `its frame has ${frame.length} bytes, at most ${frameLimit(grid.chunkSize)} are possible`;
      throw new ImagingError('CHUNK_CORRUPT', `Cannot use chunk ${id}: ${reason}`, { details: { id } });
    }
    await enter(id, async (numbers) => {
      const region = await pool.hold(frame, failure.signal);
      try {
        await write(id, numbers, { at: region.at, length: frame.length });
      } finally {
        region.release();
      }
    });
  };

  const request = async (asked: readonly string[]): Promise<void> => {
    const open = new Set(asked);
    const chunks = source.fetch(asked, failure.signal)[Symbol.asyncIterator]();
    try {
      for (;;) {
        const { done, value } = await transfer.network(() => chunks.next());
        if (done) break;
        // what was not asked for is not taken
        if (open.delete(value.id)) await receive(value);
      }
    } finally {
      await chunks.return?.();
    }
    const [lacking] = open;
    if (lacking !== undefined) {
      throw new ImagingError('CHUNK_MISSING', `Cannot fetch chunk ${lacking}: the source did not send it`, {
        details: { id: lacking },
      });
    }
  };

  const requests = createLanes(rotational ? 1 : REQUESTS, failure);
  try {
    const queue = [...wanted.keys()];
    const { path } = source;
    if (path) {
      // a folder of this machine: workers read the files themselves
      for (const id of queue) await enter(id, (numbers) => write(id, numbers, { path: path(id) }));
    } else {
      for (let at = 0; at < queue.length; at += chunksPerPack) {
        await requests.enter(() => request(queue.slice(at, at + chunksPerPack)));
      }
    }
    await requests.drain();
    await writeZeros(Number.POSITIVE_INFINITY);
    await writing.drain();
  } catch (error) {
    failure.fail(error);
    throw error;
  } finally {
    await requests.settle();
    await writing.settle();
    zeroRegion.release();
  }
};

const zeroFrame = (grid: Grid): { id: string; frame: Uint8Array } => {
  const plain = new Uint8Array(grid.length(0));
  const frame = new Uint8Array(frameLimit(plain.length));
  return { id: chunkId(plain), frame: frame.slice(0, compressFrame(plain, frame, 1)) };
};

/** Every id with all its places, in the order of its first. */
const placesById = (
  grid: Grid,
  ids: readonly string[],
  isOpen: (number: number) => boolean,
): Map<string, number[]> => {
  const places = new Map<string, number[]>();
  for (const number of grid.used) {
    const id = ids[number];
    if (id === undefined || !isOpen(number)) continue;
    const known = places.get(id);
    if (known) known.push(number);
    else places.set(id, [number]);
  }
  return places;
};

/** The partition's name, where the error is about a chunk: the reader asks which image is hurt. */
const named = (error: unknown, partition: string | undefined): unknown => {
  if (!(error instanceof ImagingError) || partition === undefined || !('id' in error.details)) return error;
  return new ImagingError(error.code, error.message, {
    details: { ...error.details, partition },
    cause: error,
  });
};
