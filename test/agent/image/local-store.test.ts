import { hash } from 'node:crypto';
import { copyFile, mkdir, readdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { openLocalStore } from '../../../agent/image/local-store.ts';
import type { ChunkPool } from '../../../agent/image/pool.ts';
import { bytesOf, chunkOf, never, temporaryFolder, testPool, toArray } from './helpers.ts';

const chunks = [1, 2, 3, 4, 5].map((seed) => chunkOf(bytesOf(seed, 60_000 * seed)));
const ids = chunks.map(({ id }) => id);
const [first, second] = chunks as [(typeof chunks)[0], (typeof chunks)[0]];

const sorted = (texts: Iterable<string>): string[] => [...texts].toSorted((a, b) => a.localeCompare(b));

const both: [string, (t: ExecutionContext) => ChunkPool | undefined][] = [
  ['in worker threads', testPool],
  ['on this thread', () => undefined],
];

for (const [where, poolOf] of both) {
  test(`chunks that were put are there, ${where}`, async (t) => {
    const store = openLocalStore(join(await temporaryFolder(t), 'chunks'), poolOf(t));
    t.deepEqual(sorted(await store.missing(ids, never)), sorted(ids));
    await store.put(chunks.slice(0, 4), never);
    t.deepEqual([...(await store.missing(ids, never))], ids.slice(4));
    t.true(await store.has(first.id));
    t.false(await store.has(ids[4] ?? ''));
    t.true(Buffer.from(first.frame).equals(await store.read(first.id)));
    const name = join(first.id.slice(0, 4), `${first.id}.cacnk`);
    t.true(Buffer.from(first.frame).equals(await readFile(join(store.folder, name))));
    t.deepEqual(await readdir(join(store.folder, 'tmp')), []);
  });

  test(`a chunk that does not hash to its name is not kept, nor its pack, ${where}`, async (t) => {
    const store = openLocalStore(join(await temporaryFolder(t), 'chunks'), poolOf(t));
    const wrong = { id: first.id, frame: second.frame };
    await t.throwsAsync(store.put([second, wrong], never), { code: 'CHUNK_CORRUPT' });
    t.deepEqual([...(await store.missing(ids, never))], ids);
    t.deepEqual(await readdir(join(store.folder, 'tmp')), []);
  });

  test(`verify finds flipped, truncated, swapped, grown and missing chunks, ${where}`, async (t) => {
    const store = openLocalStore(join(await temporaryFolder(t), 'chunks'), poolOf(t));
    await store.put(chunks, never);
    const paths = ids.map((id) => store.path(id)) as [string, string, string, string, string];
    const flipped = await readFile(paths[0]);
    flipped[100] = (flipped[100] ?? 0) ^ 1;
    await writeFile(paths[0], flipped);
    await truncate(paths[1], 1000);
    await copyFile(paths[4], paths[2]);
    await writeFile(paths[3], Buffer.concat([await readFile(paths[3]), Buffer.from('x')]));
    const absent = 'f'.repeat(64);
    const found = await store.verify([...ids, absent]);
    t.deepEqual(sorted(found.damaged), sorted(ids.slice(0, 4)));
    t.deepEqual(found.missing, [absent]);
  });
}

test('a damaged chunk is replaced when asked', async (t) => {
  const store = openLocalStore(join(await temporaryFolder(t), 'chunks'), testPool(t));
  await store.put(chunks, never);
  await truncate(store.path(first.id), 10);
  await store.put([first], never);
  t.deepEqual((await store.verify(ids)).damaged, [first.id]);
  await store.put([first], never, { replace: true });
  t.deepEqual(await store.verify(ids), { damaged: [], missing: [] });
});

test('fetch gives each chunk once and names a missing one', async (t) => {
  const store = openLocalStore(join(await temporaryFolder(t), 'chunks'));
  await store.put(chunks, never);
  const fetched = await toArray(store.fetch([...ids, ...ids], never));
  t.deepEqual(
    fetched.map(({ id }) => id),
    ids,
  );
  t.true(await store.remove(second.id));
  t.false(await store.remove(second.id));
  await t.throwsAsync(toArray(store.fetch(ids, never)), { code: 'CHUNK_MISSING' });
  await t.throwsAsync(store.read(second.id), { code: 'CHUNK_MISSING' });
});

test('a file larger than any frame is not read', async (t) => {
  const store = openLocalStore(join(await temporaryFolder(t), 'chunks'), undefined, { maxChunk: 65536 });
  const id = 'a'.repeat(64);
  await mkdir(dirname(store.path(id)), { recursive: true });
  await writeFile(store.path(id), '');
  await truncate(store.path(id), 2 ** 40);
  await t.throwsAsync(store.read(id), { code: 'CHUNK_CORRUPT' });
});

test('an id that is not a hash never reaches a path', async (t) => {
  const store = openLocalStore(await temporaryFolder(t));
  await t.throwsAsync(store.read('../../../etc/passwd'), { code: 'IMAGE_INVALID' });
  t.throws(() => store.path(`${'a'.repeat(63)}/`), { code: 'IMAGE_INVALID' });
});

test('the same chunk may be put twice at the same time', async (t) => {
  const store = openLocalStore(await temporaryFolder(t), testPool(t));
  await Promise.all([
    store.put(chunks, never),
    store.put(chunks, never),
    store.put([...chunks, first], never),
  ]);
  t.deepEqual(await store.verify(ids), { damaged: [], missing: [] });
  t.is(hash('sha256', await store.read(first.id)), hash('sha256', first.frame));
});
