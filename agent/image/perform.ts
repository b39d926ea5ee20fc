import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { ImagingError, isErrno } from '../errors.ts';
import { differingSectors, readBlock, writeBlock } from '../wipe/block.ts';
import { fillPattern } from '../wipe/pattern.ts';
import { sharedMemory } from './arena.ts';
import { readChunk, rescueChunk, writeChunk } from './chunk-io.ts';
import { chunkId, compressFrame, openFrame } from './codec.ts';
import type { FrameAt, JobKind, Jobs, StageSeconds } from './job.ts';
import { frameLimit } from './limit.ts';
import { publishFiles } from './publish.ts';

type Performers = { [K in JobKind]: (job: Jobs[K]['job']) => Jobs[K]['result'] };

export interface Performer {
  /** Do one job on this thread, start to end. */
  perform<K extends JobKind>(kind: K, job: Jobs[K]['job']): Jobs[K]['result'];
  /** Stage seconds since the last call. */
  takeSeconds(): StageSeconds;
}

/**
 * The worker's side of every job, on the shared memory `shared`. Plain bytes of a check or a write stay in
 * this thread's own scratch memory, page-aligned as well, so that they can go to an O_DIRECT descriptor.
 */
export const createPerformer = (shared: ArrayBufferLike): Performer => {
  let spent = noSeconds();
  let plain: Uint8Array = new Uint8Array(0);
  let frameScratch = new Uint8Array(0);

  const timed = <T>(stage: keyof StageSeconds, work: () => T): T => {
    const started = performance.now();
    try {
      return work();
    } finally {
      spent[stage] += (performance.now() - started) / 1000;
    }
  };
  const view = (at: number, length: number): Uint8Array => new Uint8Array(shared, at, length);
  const plainScratch = (size: number): Uint8Array => {
    if (plain.length < size) plain = new Uint8Array(sharedMemory(size));
    return plain.subarray(0, size);
  };
  const scratchFrame = (size: number): Uint8Array => {
    if (frameScratch.length < size) frameScratch = new Uint8Array(size);
    return frameScratch;
  };

  const frameOf = (frame: FrameAt, id: string, limit: number): Uint8Array => {
    if ('at' in frame) return view(frame.at, frame.length);
    return timed('read', () => readFrameFile(frame.path, id, scratchFrame(frameLimit(limit) + 1), limit));
  };

  const performers: Performers = {
    hash: ({ at, used, lookSeconds, ...place }) => {
      const target = at === null ? plainScratch(place.length) : view(at, place.length);
      const bytesRead = timed('read', () => readChunk(place, target, used, lookSeconds));
      return { id: timed('hash', () => chunkId(target)), bytesRead };
    },

    rescue: ({ at, used, seconds, ...place }) => {
      const target = view(at, place.length);
      const rescued = timed('read', () => rescueChunk(place, target, used, seconds));
      return { ...rescued, id: timed('hash', () => chunkId(target)) };
    },

    compress: ({ at, length, level }) => {
      const limit = frameLimit(length);
      return timed('codec', () => {
        const scratch = scratchFrame(limit);
        const frameLength = compressFrame(view(at, length), scratch, level);
        view(at, limit).set(scratch.subarray(0, frameLength));
        return { length: frameLength };
      });
    },

    write: ({ frame, id, length, fd, positions }) => {
      const bytes = frameOf(frame, id, length);
      const target = plainScratch(length);
      timed('codec', () => openFrame(bytes, target, id, length));
      timed('write', () => {
        for (const position of positions) writeChunk(fd, target, position);
      });
      return { frameLength: bytes.length };
    },

    store: ({ at, length, id, limit, path }) => {
      const frame = view(at, length);
      if (limit !== null) timed('codec', () => openFrame(frame, plainScratch(limit), id));
      timed('write', () => writeNewFile(path, frame));
      return {};
    },

    publish: ({ files, root }) => {
      publishFiles(files, root);
      return {};
    },

    check: ({ frame, id, limit }) => {
      const bytes = frameOf(frame, id, limit);
      const length = timed('codec', () => openFrame(bytes, plainScratch(limit), id));
      return { length, frameLength: bytes.length };
    },

    overwrite: ({ key, seconds, length, ...place }) => {
      const bytes = plainScratch(length);
      timed('codec', () => fillPattern(bytes, key, place.position));
      return { missed: timed('write', () => writeBlock(place, bytes, seconds)) };
    },

    compare: ({ key, seconds, length, ...place }) => {
      const bytes = plainScratch(length);
      const unreadable = timed('read', () => readBlock(place, bytes, seconds));
      const expected = scratchFrame(length).subarray(0, length);
      timed('codec', () => fillPattern(expected, key, place.position));
      const different = timed('hash', () => differingSectors(place, bytes, expected, unreadable));
      return { different, unreadable };
    },

    probe: ({ seconds, length, ...place }) => {
      const target = plainScratch(length);
      const started = performance.now();
      const unreadable = timed('read', () => readBlock(place, target, seconds));
      return { ms: performance.now() - started, unreadable };
    },
  };

  const takeSeconds = (): StageSeconds => {
    const taken = spent;
    spent = noSeconds();
    return taken;
  };

  return { perform: (kind, job) => performers[kind](job), takeSeconds };
};

export const noSeconds = (): StageSeconds => ({ read: 0, hash: 0, codec: 0, write: 0 });

/**
 * Read a chunk file into `target`, which is one byte larger than the largest frame.
 *
 * @throws ImagingError CHUNK_MISSING, CHUNK_CORRUPT (larger than any frame can be)
 */
const readFrameFile = (path: string, id: string, target: Uint8Array, limit: number): Uint8Array => {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
    throw new ImagingError('CHUNK_MISSING', `Cannot read chunk ${id}: it is not in the store`, {
      details: { id },
    });
  }
  try {
    let length = 0;
    for (let count = -1; count !== 0 && length < target.length; length += count) {
      count = readSync(fd, target, length, target.length - length, null);
      // most frames come in one read; the file's size says so and saves the second
      if (length === 0 && count === fstatSync(fd).size) return target.subarray(0, count);
    }
    if (length >= target.length) {
      const reason = `its file is larger than any frame of ${limit} bytes`;
      throw new ImagingError('CHUNK_CORRUPT', `Cannot use chunk ${id}: ${reason}`, { details: { id } });
    }
    return target.subarray(0, length);
  } finally {
    closeSync(fd);
  }
};

const writeNewFile = (path: string, bytes: Uint8Array): void => {
  const fd = openSync(path, 'wx', 0o644);
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
  } finally {
    closeSync(fd);
  }
};
