import { randomUUID } from 'node:crypto';
import { access, mkdir, open, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { hasCode, ImagingError, isErrno } from '../errors.ts';
import type { ChunkSink, ChunkSource, StoredChunk } from './chunk-store.ts';
import { openFrame } from './codec.ts';
import { allSettled } from './lanes.ts';
import { frameLimit } from './limit.ts';
import { type ChunkPool, SYNC_THREADS } from './pool.ts';
import { publishFiles } from './publish.ts';

export interface LocalStoreOptions {
  /** largest plain chunk that is taken, bytes; default 16 MiB, the format's limit */
  maxChunk?: number;
  /**
   * Check each chunk before it is kept (default). Only a capture in this very process, whose pool has just
   * hashed and compressed the bytes, may leave it out.
   */
  verify?: boolean;
}

export interface PutOptions {
  /** write also where a chunk of that name exists: the repair of a damaged one */
  replace?: boolean;
}

export interface VerifyOptions {
  onProgress?: (checked: number) => void;
  signal?: AbortSignal;
}

/** A casync chunk store in a folder: `<first 4 hex>/<sha256>.cacnk`. */
export interface LocalStore extends ChunkSink, ChunkSource {
  readonly folder: string;
  /** Where a chunk is or would be. A worker may read it from there; so may nginx or casync. */
  path(id: string): string;
  has(id: string): Promise<boolean>;
  /**
   * Check chunks and keep them; resolves when they are durable. A chunk appears whole or not at all.
   *
   * @throws ImagingError CHUNK_CORRUPT (then nothing of the call is kept), STORE_FULL
   */
  put(chunks: readonly StoredChunk[], signal: AbortSignal, options?: PutOptions): Promise<void>;
  /**
   * The stored frame, unchecked.
   *
   * @throws ImagingError CHUNK_MISSING, CHUNK_CORRUPT (its file is larger than any frame can be)
   */
  read(id: string): Promise<Uint8Array>;
  /** Read and check every one of these chunks. */
  verify(ids: Iterable<string>, options?: VerifyOptions): Promise<{ damaged: string[]; missing: string[] }>;
  /** Delete a chunk. False if it was not there. */
  remove(id: string): Promise<boolean>;
}

const ID = /^[0-9a-f]{64}$/;
const MAX_CHUNK = 16 * 1024 * 1024;
/** names looked up, and files read ahead, at a time */
const LOOKUPS = 64;
const READ_AHEAD = 8;

/**
 * Open the chunk store in `folder`, which is made if it does not exist. With a pool all checking happens in
 * its threads, without one on this thread (small jobs and tests).
 */
export const openLocalStore = (
  folder: string,
  pool?: ChunkPool,
  options: LocalStoreOptions = {},
): LocalStore => {
  const { maxChunk = MAX_CHUNK, verify: verifyOnPut = true } = options;
  const temporary = join(folder, 'tmp');
  const checker = pool ? pooledChecker(pool) : inlineChecker();

  const path = (id: string): string => {
    // ids reach file names here, wherever they came from
    if (!ID.test(id)) throw new ImagingError('IMAGE_INVALID', 'Cannot name a chunk: not a SHA-256 in hex');
    return join(folder, id.slice(0, 4), `${id}.cacnk`);
  };

  const has = (id: string): Promise<boolean> =>
    access(path(id)).then(
      () => true,
      (error) => {
        if (isErrno(error, 'ENOENT')) return false;
        throw error;
      },
    );

  const missing = async (ids: readonly string[], signal: AbortSignal): Promise<Set<string>> => {
    const absent = new Set<string>();
    for (let at = 0; at < ids.length; at += LOOKUPS) {
      signal.throwIfAborted();
      const batch = ids.slice(at, at + LOOKUPS);
      const found = await Promise.all(batch.map(has));
      for (const [number, id] of batch.entries()) if (!found[number]) absent.add(id);
    }
    return absent;
  };

  const put = async (
    chunks: readonly StoredChunk[],
    signal: AbortSignal,
    { replace = false }: PutOptions = {},
  ): Promise<void> => {
    const unique = [...new Map(chunks.map((chunk) => [chunk.id, chunk])).values()];
    const absent = replace
      ? undefined
      : await missing(
          [...unique].map(({ id }) => id),
          signal,
        );
    const wanted = absent ? unique.filter(({ id }) => absent.has(id)) : unique;
    if (wanted.length === 0) return;
    const files = wanted.map((chunk) => ({ chunk, written: join(temporary, randomUUID()) }));
    try {
      await mkdir(temporary, { recursive: true });
      const limit = verifyOnPut ? maxChunk : null;
      await allSettled(files.map(({ chunk, written }) => checker.store(chunk, written, limit, signal)));
      signal.throwIfAborted();
      await checker.publish(
        files.map(({ chunk, written }) => ({ from: written, to: path(chunk.id) })),
        folder,
      );
    } catch (error) {
      await Promise.all(files.map(({ written }) => rm(written, { force: true })));
      throw storeError(error);
    }
  };

  const read = async (id: string): Promise<Uint8Array> => {
    const limit = frameLimit(maxChunk);
    try {
      const { size } = await stat(path(id));
      if (size > limit) {
        const reason = `its file has ${size} bytes, at most ${limit} are possible`;
        throw new ImagingError('CHUNK_CORRUPT', `Cannot use chunk ${id}: ${reason}`, { details: { id } });
      }
      return await readFile(path(id));
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
      throw new ImagingError('CHUNK_MISSING', `Cannot read chunk ${id}: it is not in the store`, {
        details: { id },
      });
    }
  };

  async function* fetch(ids: readonly string[], signal: AbortSignal): AsyncGenerator<StoredChunk> {
    const ahead: Promise<StoredChunk>[] = [];
    const readOne = (id: string): Promise<StoredChunk> => {
      const chunk = read(id).then((frame) => ({ id, frame }));
      // it may fail before its turn comes, and then nobody listens yet
      chunk.catch(() => {});
      return chunk;
    };
    const wanted = [...new Set(ids)];
    for (const [number, id] of wanted.entries()) {
      signal.throwIfAborted();
      if (number === 0) ahead.push(...wanted.slice(0, READ_AHEAD).map(readOne));
      const next = wanted[number + READ_AHEAD];
      if (next !== undefined) ahead.push(readOne(next));
      const chunk = await ahead.shift();
      if (!chunk) throw new ImagingError('INTERNAL', `Cannot read chunk ${id}: read-ahead is empty`);
      yield chunk;
    }
  }

  const verify = async (
    ids: Iterable<string>,
    { onProgress, signal }: VerifyOptions = {},
  ): Promise<{ damaged: string[]; missing: string[] }> => {
    const result = { damaged: [] as string[], missing: [] as string[] };
    let checked = 0;
    const iterator = new Set(ids).values();
    const lane = async (): Promise<void> => {
      for (const id of iterator) {
        signal?.throwIfAborted();
        try {
          await checker.checkFile(path(id), id, maxChunk);
        } catch (error) {
          if (hasCode(error, 'CHUNK_MISSING')) result.missing.push(id);
          else if (hasCode(error, 'CHUNK_CORRUPT') || isErrno(error, 'EIO')) result.damaged.push(id);
          else throw error;
        }
        checked += 1;
        onProgress?.(checked);
      }
    };
    await allSettled(Array.from({ length: (pool?.workers ?? 1) * 2 }, lane));
    return result;
  };

  const remove = async (id: string): Promise<boolean> => {
    try {
      await rm(path(id));
      return true;
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return false;
      throw error;
    }
  };

  return { folder, path, has, missing, put, read, fetch, verify, remove };
};

interface Checker {
  /** check (unless `limit` is null) and write to the new file `path` */
  store(chunk: StoredChunk, path: string, limit: number | null, signal: AbortSignal): Promise<void>;
  checkFile(path: string, id: string, limit: number): Promise<void>;
  publish(files: { from: string; to: string }[], root: string): Promise<void>;
}

const pooledChecker = (pool: ChunkPool): Checker => ({
  store: async ({ id, frame }, path, limit, signal) => {
    const at = pool.locate(frame);
    // a capture's frames lie in the pool already; a server's came from the network
    const region = at === null ? await pool.hold(frame, signal) : null;
    try {
      await pool.run('store', { at: region?.at ?? at ?? 0, length: frame.length, id, limit, path });
    } finally {
      region?.release();
    }
  },
  checkFile: async (path, id, limit) => {
    await pool.run('check', { frame: { path }, id, limit });
  },
  publish: async (files, root) => {
    // in parts: filesystems commit flushes that come at the same time together
    const half = Math.ceil(files.length / SYNC_THREADS);
    const parts = Array.from({ length: SYNC_THREADS }, (_, part) =>
      files.slice(part * half, (part + 1) * half),
    );
    await allSettled(
      parts.filter(({ length }) => length > 0).map((part) => pool.run('publish', { files: part, root })),
    );
  },
});

const inlineChecker = (): Checker => {
  let scratch = new Uint8Array(0);
  const check = (frame: Uint8Array, id: string, limit: number): void => {
    if (scratch.length < limit) scratch = new Uint8Array(limit);
    openFrame(frame, scratch.subarray(0, limit), id);
  };
  return {
    store: async ({ id, frame }, path, limit) => {
      if (limit !== null) check(frame, id, limit);
      const file = await open(path, 'wx', 0o644);
      try {
        await file.writeFile(frame);
      } finally {
        await file.close();
      }
    },
    checkFile: async (path, id, limit) => {
      const frame = await readFile(path).catch((error) => {
        if (!isErrno(error, 'ENOENT')) throw error;
        throw new ImagingError('CHUNK_MISSING', `Cannot read chunk ${id}: it is not in the store`, {
          details: { id },
        });
      });
      check(frame, id, limit);
    },
    publish: async (files, root) => publishFiles(files, root),
  };
};

const storeError = (error: unknown): unknown => {
  if (!isErrno(error, 'ENOSPC') && !isErrno(error, 'EDQUOT')) return error;
  return new ImagingError('STORE_FULL', 'Cannot store chunks: no space left on the device', { cause: error });
};
