import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import test from 'ava';
import tar from 'tar-stream';
import { chunksPerPack } from '../../agent/protocol/index.ts';
import { addHost, addTask, bootAgent, capture, makeImage, octets, tarOf, testServer } from './support.ts';

const setUp = async (t: Parameters<typeof testServer>[0]) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const task = await addTask(server, 'pc1', 'capture', { image: 'lab' });
  const agent = await bootAgent(server, mac);
  await agent.post('next');
  const opened = await agent.post('uploads', { taskId: task.id, attempt: 1, image: 'lab', estimateBytes: 1 });
  const { uploadId } = opened.json() as { uploadId: string };
  const send = (payload: Buffer, upload = uploadId) =>
    agent.call({ method: 'POST', url: `/agent/v1/packs?upload=${upload}`, headers: octets, payload });
  const stored = async () => {
    const names = await readdir(join(server.data, 'chunks'), { recursive: true });
    return names.filter((name) => name.endsWith('.cacnk'));
  };
  return { server, mac, task, agent, uploadId, send, stored };
};

const tarWith = (entries: [string, Buffer][]): Promise<Buffer> => {
  const pack = tar.pack();
  for (const [name, body] of entries) pack.entry({ name }, body);
  pack.finalize();
  return buffer(pack);
};

test('a pack is counted, and a repeated one is known', async (t) => {
  const { send, stored } = await setUp(t);
  const { chunks } = makeImage(2);
  t.deepEqual((await send(await tarOf(chunks))).json(), { cancel: false, stored: 3, known: 0 });
  t.deepEqual((await send(await tarOf(chunks))).json(), { cancel: false, stored: 0, known: 3 });
  t.is((await stored()).length, 3);
});

test('a chunk that is not what its name says is refused and nothing of it is kept', async (t) => {
  const { send, stored } = await setUp(t);
  const [a, b] = makeImage(2).chunks;
  const swapped = await send(await tarWith([[`${a?.id}.cacnk`, Buffer.from(b?.frame ?? [])]]));
  t.is(swapped.json().error.code, 'CHUNK_CORRUPT');
  const flipped = Buffer.from(a?.frame ?? []);
  flipped[1000] = (flipped[1000] ?? 0) ^ 1;
  t.is((await send(await tarWith([[`${a?.id}.cacnk`, flipped]]))).json().error.code, 'CHUNK_CORRUPT');
  const bomb = Buffer.alloc(20 * 1024 * 1024);
  t.is((await send(await tarWith([[`${a?.id}.cacnk`, bomb]]))).json().error.code, 'CHUNK_CORRUPT');
  t.deepEqual(await stored(), []);
});

test('what is not a pack is refused', async (t) => {
  const { send, stored, agent, uploadId } = await setUp(t);
  const [chunk] = makeImage(1).chunks;
  const frame = Buffer.from(chunk?.frame ?? []);
  const whole = await tarOf([{ id: chunk?.id ?? '', frame }]);
  for (const body of [
    Buffer.from('not a tar at all'.repeat(100)),
    await tarWith([['../../../evil', frame]]),
    await tarWith([[`/${chunk?.id}.cacnk`, frame]]),
    await tarWith([['x.cacnk', frame]]),
    whole.subarray(0, 2000),
  ]) {
    const answer = await send(body);
    t.is(answer.statusCode, 400, answer.body);
  }
  const many = makeImage(chunksPerPack + 1).chunks;
  t.is((await send(await tarOf(many))).statusCode, 400, 'more than a pack');
  t.deepEqual(await stored(), []);
  t.is((await agent.post('packs?upload=nonsense')).statusCode, 400);
  t.is((await send(whole, '11111111-1111-4111-8111-111111111111')).statusCode, 404);
  t.is((await send(whole, uploadId)).statusCode, 200);
});

test('only files that a version can have are taken', async (t) => {
  const { agent, uploadId, server } = await setUp(t);
  const put = async (name: string) =>
    (
      await agent.call({
        method: 'PUT',
        url: `/agent/v1/uploads/${uploadId}/files/${name}`,
        headers: octets,
        payload: 'x',
      })
    ).statusCode;
  t.is(await put('p1.caibx'), 200);
  t.is(await put('d2p10.map'), 200);
  t.is(await put('d1.boot'), 200);
  for (const name of [
    'manifest.json',
    'p1.caibx.sh',
    '..%2f..%2fserver.key',
    '%2e%2e',
    'p1',
    'P1.map',
    'p1.map%00',
  ]) {
    const status = await put(name);
    t.true(status === 400 || status === 404, `${name}: ${status}`);
  }
  t.deepEqual((await readdir(join(server.data, 'uploads', uploadId))).sort(), [
    'd1.boot',
    'd2p10.map',
    'p1.caibx',
  ]);
  t.true(existsSync(join(server.data, 'server.key')));
});

test('an upload belongs to the machine that captures', async (t) => {
  const { server, uploadId } = await setUp(t);
  const { mac } = await addHost(server, 'pc2');
  await addTask(server, 'pc2', 'capture', { image: 'lab' });
  const other = await bootAgent(server, mac);
  await other.post('next');
  const { chunks } = makeImage(1);
  const headers = octets;
  const url = `/agent/v1/packs?upload=${uploadId}`;
  t.is((await other.call({ method: 'POST', url, headers, payload: await tarOf(chunks) })).statusCode, 404);
  const ids = chunks.map(({ id }) => id);
  t.is((await other.post('chunks/missing', { uploadId, ids })).statusCode, 404);
  const file = `/agent/v1/uploads/${uploadId}/files/p1.map`;
  t.is((await other.call({ method: 'PUT', url: file, headers, payload: 'x' })).statusCode, 404);
});

test('an upload is opened by a capture of this image only', async (t) => {
  const { agent, task } = await setUp(t);
  const open = async (body: object) =>
    (
      await agent.post('uploads', { taskId: task.id, attempt: 1, image: 'lab', estimateBytes: 1, ...body })
    ).json().error?.code;
  t.is(await open({ image: 'other' }), 'BAD_REQUEST');
  t.is(await open({ image: '../lab' }), 'BAD_REQUEST');
  t.is(await open({ attempt: 2 }), 'LEASE_LOST');
  t.is(await open({ taskId: '11111111-1111-4111-8111-111111111111' }), 'NOT_FOUND');
  t.is(await open({}), undefined);
});

test('two captures of one image at a time get numbers of their own', async (t) => {
  const server = await testServer(t);
  const a = await addHost(server, 'a');
  const b = await addHost(server, 'b');
  const first = await capture(server, a.mac, 'lab', makeImage(1), { publish: false });
  const second = await capture(server, b.mac, 'lab', makeImage(1));
  t.deepEqual([first.version, second.version], [1, 2]);
  t.is((await first.publish()).statusCode, 200);
});

test('more ids than a request may ask for are refused', async (t) => {
  const { agent, uploadId } = await setUp(t);
  const ids = Array.from({ length: 1001 }, (_, n) => n.toString(16).padStart(64, '0'));
  t.is((await agent.post('chunks/missing', { uploadId, ids })).statusCode, 400);
  const some = await agent.post('chunks/missing', { uploadId, ids: ids.slice(0, 1000) });
  t.is(some.json().missing.length, 1000);
});
