import { existsSync } from 'node:fs';
import { copyFile, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import test from 'ava';
import { collectChunks } from '../../server-stub/images/remove.ts';
import {
  addHost,
  addTask,
  bootAgent,
  capture,
  chunkPath,
  failureOf,
  listImages,
  makeImage,
  testServer,
  verifyVersion,
} from './support.ts';

for (const [what, damage] of [
  [
    'a flipped bit',
    async (path: string) => {
      const bytes = await readFile(path);
      bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 4;
      await writeFile(path, bytes);
    },
  ],
  ['a truncated file', (path: string) => truncate(path, 100)],
  ['another chunk under its name', async (path: string, other: string) => copyFile(other, path)],
] as const) {
  test(`verify finds ${what} and the next capture heals it`, async (t) => {
    const server = await testServer(t);
    const { mac } = await addHost(server, 'pc1');
    const content = makeImage(4);
    await capture(server, mac, 'lab', content);
    await capture(server, mac, 'lab', content);
    t.deepEqual((await verifyVersion(server)).damaged, []);
    const [a, b] = content.chunks.map(({ id }) => id);
    await damage(chunkPath(server, a ?? ''), chunkPath(server, b ?? ''));
    t.deepEqual((await verifyVersion(server)).damaged, [a]);
    const hurt = (await listImages(server))[0].versions.map((v: { hurt: string[] }) => v.hurt);
    t.deepEqual(hurt, [[a], [a]], 'both versions need it');
    const again = await capture(server, mac, 'lab', content);
    t.deepEqual(again.missing, [a]);
    t.deepEqual((await verifyVersion(server)).damaged, []);
    t.true((await listImages(server))[0].versions.every((v: { hurt: string[] }) => v.hurt.length === 0));
  });
}

test('a missing chunk file is found by verify, and one that is put back is trusted again', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const content = makeImage(2);
  await capture(server, mac, 'lab', content);
  const path = chunkPath(server, content.chunks[0]?.id ?? '');
  const bytes = await readFile(path);
  await rm(path);
  t.deepEqual((await verifyVersion(server)).missing, [content.chunks[0]?.id]);
  await writeFile(path, bytes.subarray(0, 50));
  t.deepEqual((await verifyVersion(server)).damaged, [content.chunks[0]?.id]);
  await writeFile(path, bytes);
  t.deepEqual((await verifyVersion(server)).damaged, []);
  t.deepEqual((await listImages(server))[0].versions[0].hurt, []);
});

test('a chunk that is truncated or gone is noticed before a pack is sent', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const content = makeImage(3);
  await capture(server, mac, 'lab', content);
  await addTask(server, 'pc1', 'deploy', { image: 'lab' });
  const agent = await bootAgent(server, mac);
  await agent.post('next');
  const ids = content.chunks.map(({ id }) => id);
  await truncate(chunkPath(server, ids[0] ?? ''), 7);
  const corrupt = (await agent.post('packs/fetch', { image: 'lab', version: 1, ids })).json();
  t.like(corrupt.error, { code: 'CHUNK_CORRUPT', details: { id: ids[0] } });
  await rm(chunkPath(server, ids[0] ?? ''));
  const missing = (await agent.post('packs/fetch', { image: 'lab', version: 1, ids })).json();
  t.like(missing.error, { code: 'CHUNK_MISSING', details: { id: ids[0] } });
  t.deepEqual((await listImages(server))[0].versions[0].hurt, [ids[0]]);
});

test('a chunk that a machine reports is looked at by the server itself before it calls a version hurt', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const content = makeImage(2);
  await capture(server, mac, 'lab', content);
  const [a, b] = content.chunks.map(({ id }) => id);
  const bytes = await readFile(chunkPath(server, b ?? ''));
  bytes[20] = (bytes[20] ?? 0) ^ 1;
  await writeFile(chunkPath(server, b ?? ''), bytes);
  for (const id of [a, b]) {
    const task = await addTask(server, 'pc1', 'deploy', { image: 'lab' });
    const agent = await bootAgent(server, mac);
    await agent.post('next');
    await agent.post(`tasks/${task.id}/result`, failureOf(1, 'CHUNK_CORRUPT', { id }));
  }
  t.deepEqual((await listImages(server))[0].versions[0].hurt, [b], 'the sound one is not suspected');
});

test('rows are rebuilt from manifests when the database is lost', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const content = makeImage(3);
  await capture(server, mac, 'lab', content);
  await capture(server, mac, 'lab', content);
  const before = await listImages(server);
  await server.close();
  for (const suffix of ['', '-wal', '-shm'])
    await rm(join(server.data, `fog.sqlite${suffix}`), { force: true });
  const again = await testServer(t, { data: server.data });
  t.deepEqual((await listImages(again))[0].versions, before[0].versions);
  const host = await addHost(again, 'pc1', mac);
  const third = await capture(again, host.mac, 'lab', content);
  t.is(third.version, 3);
  t.deepEqual(third.missing, [], 'the chunks are known again');
});

test('a version whose manifest is gone is no version', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  await capture(server, mac, 'lab', makeImage(1));
  await server.close();
  await rm(join(server.data, 'images/lab/1/manifest.json'));
  const again = await testServer(t, { data: server.data });
  t.deepEqual(await listImages(again), []);
  const payload = { host: 'pc1', type: 'deploy', params: { image: 'lab' } };
  const answer = await again.admin({ method: 'POST', url: '/api/tasks', payload });
  t.is(answer.json().error.code, 'IMAGE_NOT_FOUND');
});

test('removing a version deletes the chunks that no other version and no open upload needs', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const shared = makeImage(2);
  const own = makeImage(2);
  const both = { ...own, chunks: [...own.chunks, ...shared.chunks], ids: [...own.ids] };
  await capture(server, mac, 'lab', shared);
  await capture(server, mac, 'lab', both);
  const deploy = await addTask(server, 'pc1', 'deploy', { image: 'lab', version: 2 });
  const remove = () => server.admin({ method: 'DELETE', url: '/api/images/lab/versions/2' });
  t.is((await remove()).statusCode, 409, 'a task deploys it');
  await server.admin({ method: 'POST', url: `/api/tasks/${deploy.id}/cancel` });
  t.is((await remove()).statusCode, 204);
  for (const { id } of own.chunks.slice(0, 2)) t.false(existsSync(chunkPath(server, id)));
  for (const { id } of shared.chunks) t.true(existsSync(chunkPath(server, id)));
  t.deepEqual((await verifyVersion(server)).damaged, []);

  const open = await capture(server, mac, 'lab', makeImage(2), { publish: false });
  t.is((await collectChunks(server.app.fog)).chunks, 0, 'pinned');
  await open.agent.post(`tasks/${open.task.id}/result`, failureOf(open.attempt, 'TOOL_FAILED'));
  t.is((await collectChunks(server.app.fog)).chunks, 2);
  t.false(existsSync(dirname(join(server.data, 'uploads', open.uploadId, 'x'))));
  const next = await capture(server, mac, 'lab', shared);
  t.is(next.version, 4, 'numbers are never given out twice');
});

test('the files of a version are checked too', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  await capture(server, mac, 'lab', makeImage(1));
  await writeFile(join(server.data, 'images/lab/1/p1.map'), 'mop');
  t.deepEqual((await verifyVersion(server)).files, ['p1.map']);
  t.deepEqual((await listImages(server))[0].versions[0].hurt, ['p1.map']);
  await writeFile(join(server.data, 'images/lab/1/p1.caibx'), 'mop');
  t.like(await verifyVersion(server), { checked: 0, files: ['p1.caibx', 'p1.map'] });
});

test('while a version cannot be read no chunk is deleted', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const content = makeImage(2);
  await capture(server, mac, 'lab', content);
  await server.close();
  await writeFile(join(server.data, 'images/lab/1/manifest.json'), 'torn');
  const errors: unknown[] = [];
  const again = await testServer(t, { data: server.data, onError: (error) => errors.push(error) });
  t.regex(String(errors[0]), /Cannot serve the version in .*lab\/1/);
  t.deepEqual(await listImages(again), []);
  await t.throwsAsync(collectChunks(again.app.fog));
  for (const { id } of content.chunks) t.true(existsSync(chunkPath(again, id)));
});
