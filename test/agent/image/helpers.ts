import { hash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { compress } from 'zstd-napi';
import type { StoredChunk } from '../../../agent/image/chunk-store.ts';
import { type ChunkPool, createPool, type PoolOptions } from '../../../agent/image/pool.ts';

export const never = new AbortController().signal;

/** Bytes that are the same each time: a small generator, half of it compressible. */
export const bytesOf = (seed: number, length: number): Uint8Array => {
  const bytes = new Uint8Array(length);
  let state = (seed * 2654435761 + 1) >>> 0;
  for (let at = 0; at < length; at += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[at] = at % 8192 < 4096 ? state >>> 24 : seed & 0xff;
  }
  return bytes;
};

export const chunkOf = (plain: Uint8Array): StoredChunk => ({
  id: hash('sha256', plain),
  frame: compress(plain),
});

export const toArray = async <T>(items: AsyncIterable<T>): Promise<T[]> => {
  const array: T[] = [];
  for await (const item of items) array.push(item);
  return array;
};

/** A folder that is removed when the test has ended. */
export const temporaryFolder = async (t: ExecutionContext): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'image-test-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
};

export const testPool = (t: ExecutionContext, options: PoolOptions = {}): ChunkPool => {
  const pool = createPool({ workers: 2, memory: 64 * 1024 * 1024, ...options });
  t.teardown(() => pool.close());
  return pool;
};
