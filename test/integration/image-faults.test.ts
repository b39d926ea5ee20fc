import { copyFile, mkdir, open, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { decodeCaibx } from '../../agent/image/caibx.ts';
import { type Captured, captureRange } from '../../agent/image/capture.ts';
import type { ChunkSink, ChunkSource } from '../../agent/image/chunk-store.ts';
import { type DeployOptions, deployRange } from '../../agent/image/deploy.ts';
import { type LocalStore, openLocalStore } from '../../agent/image/local-store.ts';
import type { ChunkPool } from '../../agent/image/pool.ts';
import { readBack } from '../../agent/image/verify.ts';
import { run } from '../../agent/process/run.ts';
import { chunksPerPack } from '../../agent/protocol/index.ts';
import { bytesOf } from '../agent/image/helpers.ts';
import { counted, folderOf, loopDevice, MIB, poolOf } from './image-helpers.ts';

const chunkSize = 65536;
const chunks = 400;
const size = chunks * chunkSize;
const level = 1;

interface Setting {
  folder: string;
  pool: ChunkPool;
  store: LocalStore;
  source: string;
  captured: Captured;
  image: Pick<DeployOptions, 'index' | 'map' | 'chunkSize' | 'pool' | 'start'>;
}

/** An image of distinct chunks, but for 20 that are all alike and 20 that are used and zero. */
const setting = async (t: ExecutionContext): Promise<Setting> => {
  const folder = await folderOf(t);
  const pool = poolOf(t, 64 * MIB);
  const source = join(folder, 'source');
  const content = Buffer.alloc(size);
  for (let number = 0; number < chunks; number += 1) {
    const seed = number >= 100 && number < 120 ? 5000 : number + 1;
    if (number < 380) content.set(bytesOf(seed, chunkSize), number * chunkSize);
  }
  await writeFile(source, content);
  const store = openLocalStore(join(folder, 'chunks'), pool);
  const extents = [{ offset: 0, length: size }];
  const captured = await captureRange({
    device: source,
    start: 0,
    size,
    extents,
    chunkSize,
    level,
    sink: store,
    pool,
  });
  const image = { index: captured.index, map: captured.map, chunkSize, pool, start: 0 };
  return { folder, pool, store, source, captured, image };
};

/** serves so many chunks, then the wire is cut */
const cutAfter = (store: ChunkSource, count: number): ChunkSource & { served: number } => {
  const source = {
    served: 0,
    async *fetch(ids: readonly string[], signal: AbortSignal) {
      for await (const chunk of store.fetch(ids, signal)) {
        if (source.served >= count) throw new Error('the wire is cut');
        source.served += 1;
        yield chunk;
      }
    },
  };
  return source;
};

for (const percent of [20, 50, 80]) {
  test(`a deploy cut off at ${percent} % goes on there, on a disk that forgot what was not flushed`, async (t) => {
    const { folder, store, source, captured, image } = await setting(t);
    const unique = new Set(captured.ids).size;
    const file = join(folder, 'target');
    const target = await loopDevice(t, file, size);
    const reports: [number, number][][] = [];
    const first = cutAfter(store, Math.floor((unique * percent) / 100));
    await t.throwsAsync(
      deployRange({
        ...image,
        device: target,
        source: first,
        onDurable: (ranges) => {
          reports.push(ranges);
        },
      }),
      { message: 'the wire is cut' },
    );
    // what such a disk holds after the power came back: only what it had said to be durable
    const durable = reports.at(-1) ?? [];
    const forgetful = join(folder, 'forgetful');
    const [written, kept] = [await readFile(file), Buffer.alloc(size, 0xee)];
    for (const [from, to] of durable) {
      written.copy(kept, from * chunkSize, from * chunkSize, (to + 1) * chunkSize);
    }
    await writeFile(forgetful, kept);
    const second = counted(store);
    const device = await loopDevice(t, forgetful, size);
    await deployRange({ ...image, device, source: second, durable });
    const allowed = unique * (1 - percent / 100) + image.pool.workers + unique * 0.02;
    t.true(second.served.length <= allowed, `${second.served.length} fetched, ${allowed} allowed`);
    await readBack({ ...image, device, mode: 'full' });
    t.true(await sameBytes(forgetful, source));
  });
}

test('durable ranges that are not true are not believed', async (t) => {
  const { folder, store, source, image } = await setting(t);
  const file = join(folder, 'target');
  await writeFile(file, Buffer.alloc(size, 0xee));
  await deployRange({ ...image, device: file, source: store, durable: [[0, chunks - 1]] });
  t.true(await sameBytes(file, source));
});

test('a capture cut off goes on where it was', async (t) => {
  const { folder, pool, source, captured } = await setting(t);
  const store = openLocalStore(join(folder, 'other'), pool);
  let packs = 0;
  const cut: ChunkSink = {
    missing: store.missing,
    put: async (pack, signal) => {
      if (packs >= 2) throw new Error('the wire is cut');
      packs += 1;
      await store.put(pack, signal);
    },
  };
  const extents = [{ offset: 0, length: size }];
  const common = { device: source, start: 0, size, extents, chunkSize, level, pool };
  await t.throwsAsync(captureRange({ ...common, sink: cut }), { message: 'the wire is cut' });
  const second = await captureRange({ ...common, sink: store });
  t.is(packs, 2);
  t.is(second.stats.chunks - second.stats.chunksReused, captured.ids.length - 2 * chunksPerPack);
  t.deepEqual(await store.verify(captured.ids), { damaged: [], missing: [] });
});

const damages: [string, (store: LocalStore, id: string, other: string) => Promise<void>][] = [
  [
    'one flipped bit',
    async (store, id) => {
      const frame = await readFile(store.path(id));
      frame[frame.length >> 1] = (frame[frame.length >> 1] ?? 0) ^ 4;
      await writeFile(store.path(id), frame);
    },
  ],
  ['a truncated chunk', (store, id) => truncate(store.path(id), 20_000)],
  ['an empty chunk', (store, id) => truncate(store.path(id), 0)],
  ["a chunk under another's name", (store, id, other) => copyFile(store.path(other), store.path(id))],
  ['a chunk with bytes behind it', async (store, id) => writeFile(store.path(id), '!', { flag: 'a' })],
  ['a chunk larger than any', (store, id) => truncate(store.path(id), 2 ** 33)],
];
for (const [what, damage] of damages) {
  for (const how of ['from a folder', 'over a wire'] as const) {
    test(`${what} ${how}: the deploy fails before a byte of it reaches the disk`, async (t) => {
      const { folder, store, image } = await setting(t);
      const { ids } = decodeCaibx(image.index);
      const [id, other] = [ids[200] ?? '', ids[300] ?? ''];
      await damage(store, id, other);
      const file = join(folder, 'target');
      await writeFile(file, Buffer.alloc(size, 0xee));
      const source = how === 'from a folder' ? store : { fetch: store.fetch };
      const error = await t.throwsAsync(deployRange({ ...image, device: file, source, partition: 'p3' }), {
        code: 'CHUNK_CORRUPT',
      });
      t.like(error, { details: { id, partition: 'p3' } });
      const at = (await readFile(file)).subarray(200 * chunkSize, 201 * chunkSize);
      t.true(at.every((byte) => byte === 0xee));
      t.deepEqual((await store.verify(ids)).damaged, [id]);
    });
  }
}

test('a chunk that the store lacks is named', async (t) => {
  const { folder, store, image } = await setting(t);
  const id = decodeCaibx(image.index).ids[7] ?? '';
  await store.remove(id);
  for (const source of [store, { fetch: store.fetch }]) {
    const error = await t.throwsAsync(
      deployRange({ ...image, device: await blank(folder), source, partition: 'p1' }),
      { code: 'CHUNK_MISSING' },
    );
    t.like(error, { details: { id, partition: 'p1' } });
  }
});

test('a source that leaves chunks out or sends others does not finish a deploy', async (t) => {
  const { folder, store, image } = await setting(t);
  const lazy: ChunkSource = {
    async *fetch(ids, signal) {
      yield* store.fetch(ids.slice(1), signal);
    },
  };
  await t.throwsAsync(deployRange({ ...image, device: await blank(folder), source: lazy }), {
    code: 'CHUNK_MISSING',
  });
});

test('a read error names the byte, and nothing is captured', async (t) => {
  const folder = await folderOf(t);
  const pool = poolOf(t, 64 * MIB);
  const file = join(folder, 'dying');
  const device = await loopDevice(t, file, size);
  // a loop device answers EIO where its file has ended meanwhile
  const good = 150 * chunkSize + 8192;
  await truncate(file, good);
  const sink = openLocalStore(join(folder, 'chunks'), pool);
  const extents = [{ offset: 0, length: size }];
  const capture = captureRange({ device, start: 0, size, extents, chunkSize, level, sink, pool });
  const error = await t.throwsAsync(capture, { code: 'DISK_READ_FAILED' });
  const { offset, lba } = (error as unknown as { details: { offset: number; lba: number } }).details;
  t.true(offset >= good && offset % 512 === 0, `${offset}`);
  t.is(lba, offset / 512);
});

test('what cannot be read on the target is written', async (t) => {
  const { folder, store, source, image } = await setting(t);
  const file = join(folder, 'target');
  const device = await loopDevice(t, file, size);
  await deployRange({ ...image, device, source: store });
  // the last fifth answers EIO to reads, and takes writes
  await truncate(file, size * 0.8);
  const { stats } = await deployRange({ ...image, device, source: store });
  t.true(stats.chunksReused >= chunks * 0.75 && stats.bytesWritten > 0);
  t.true(await sameBytes(file, source));
});

test('a write error names the byte', async (t) => {
  const { folder, store, image } = await setting(t);
  const full = await tmpfs(t, folder, '8m');
  const device = await loopDevice(t, join(full, 'disk'), size);
  const deploy = deployRange({ ...image, device, source: store });
  const error = await t.throwsAsync(deploy, { code: 'DISK_WRITE_FAILED' });
  t.is(typeof (error as unknown as { details: { offset: number } }).details.offset, 'number');
});

test('a full store is a clear error, leaves no temporary files and what was stored before', async (t) => {
  const { folder, pool, source, captured } = await setting(t);
  const full = await tmpfs(t, folder, '3m');
  const sink = openLocalStore(join(full, 'chunks'), pool);
  const extents = [{ offset: 0, length: size }];
  const capture = captureRange({ device: source, start: 0, size, extents, chunkSize, level, sink, pool });
  await t.throwsAsync(capture, { code: 'STORE_FULL' });
  const { stdout } = await run('find', [join(full, 'chunks', 'tmp'), '-type', 'f']);
  t.is(stdout, '');
  t.deepEqual((await sink.verify(captured.ids)).damaged, []);
});

test('a mounted disk is not written', async (t) => {
  const { folder, store, image } = await setting(t);
  const file = join(folder, 'target');
  const device = await loopDevice(t, file, size);
  await run('mkfs.ext4', ['-q', device]);
  const place = join(folder, 'mounted');
  await mkdir(place);
  await run('mount', ['-o', 'ro', device, place]);
  t.teardown(() => run('umount', [place]).then(() => {}));
  const before = await readFile(file);
  await t.throwsAsync(deployRange({ ...image, device, source: store }), { code: 'DISK_IN_USE' });
  t.true(before.equals(await readFile(file)));
});

test('a target that is too small is not written', async (t) => {
  const { folder, store, image } = await setting(t);
  const device = await loopDevice(t, join(folder, 'target'), size - 4096);
  await t.throwsAsync(deployRange({ ...image, device, source: store }), { code: 'DISK_WRITE_FAILED' });
});

test('read-back finds one changed bit and says where', async (t) => {
  const { folder, store, image } = await setting(t);
  const file = join(folder, 'target');
  const device = await loopDevice(t, file, size);
  await deployRange({ ...image, device, source: store });
  await readBack({ ...image, device, mode: 'full' });
  const handle = await open(file, 'r+');
  await handle.write(Buffer.from([0xff, 0x00, 0xff]), 0, 3, 77 * chunkSize + 5000);
  await handle.sync();
  await handle.close();
  const error = await t.throwsAsync(readBack({ ...image, device, mode: 'full' }), {
    code: 'READ_BACK_MISMATCH',
  });
  t.like(error, { details: { offset: 77 * chunkSize } });
});

test('cancelling stops a capture and a deploy, and the pool works on', async (t) => {
  const { folder, pool, store, source, image } = await setting(t);
  const extents = [{ offset: 0, length: size }];
  const sink = openLocalStore(join(folder, 'other'), pool);
  for (const work of [
    (signal: AbortSignal, onProgress: () => void) =>
      captureRange({
        device: source,
        start: 0,
        size,
        extents,
        chunkSize,
        level,
        sink,
        pool,
        onProgress,
        signal,
      }),
    async (signal: AbortSignal, onProgress: () => void) =>
      deployRange({
        ...image,
        device: await blank(folder),
        source: { fetch: store.fetch },
        onProgress,
        signal,
      }),
  ]) {
    const controller = new AbortController();
    const stop = (): void => controller.abort(new Error('stop'));
    await t.throwsAsync(work(controller.signal, stop), { message: 'stop' });
  }
  t.truthy(pool.arena.tryAllocate(pool.arena.size), 'all memory was given back');
});

const sameBytes = async (one: string, other: string): Promise<boolean> =>
  (await readFile(one)).equals(await readFile(other));

const blank = async (folder: string): Promise<string> => {
  const file = join(folder, `blank-${Math.random()}`);
  await writeFile(file, '');
  await truncate(file, size);
  return file;
};

const tmpfs = async (t: ExecutionContext, folder: string, bytes: string): Promise<string> => {
  const place = join(folder, 'tmpfs');
  await mkdir(place);
  await run('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', place]);
  t.teardown(() => run('umount', ['--lazy', place]).then(() => {}));
  return place;
};
