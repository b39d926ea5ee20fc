import { createPublicKey, verify } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import test from 'ava';
import { unpack } from '../../agent/image/pack.ts';
import { frameLimit } from '../../agent/protocol/index.ts';
import {
  addHost,
  addTask,
  bootAgent,
  CHUNK,
  capture,
  chunkPath,
  listImages,
  makeImage,
  resultOf,
  showTask,
  testServer,
  verifyVersion,
} from './support.ts';

test('a capture becomes a signed version whose chunks a deploy of it receives', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const content = makeImage(5);
  const captured = await capture(server, mac, 'lab', content);
  t.is(captured.version, 1);
  t.is((await showTask(server, captured.task.id)).state, 'succeeded');
  t.false(existsSync(join(server.data, 'uploads', captured.uploadId)));

  const deploy = await addTask(server, 'pc1', 'deploy', { image: 'lab' });
  t.is(deploy.params['version'], 1);
  const agent = await bootAgent(server, mac);
  t.is((await agent.post('next')).json().task.id, deploy.id);
  const signed = (await agent.call({ url: '/agent/v1/images/lab/versions/1' })).json();
  const key = createPublicKey({
    key: Buffer.from(server.app.fog.key.publicKey, 'base64'),
    type: 'spki',
    format: 'der',
  });
  t.true(verify(null, Buffer.from(signed.manifest), key, Buffer.from(signed.signature, 'base64')));
  t.deepEqual(JSON.parse(signed.manifest), captured.manifest);
  t.is(await readFile(join(server.data, 'images/lab/1/manifest.json'), 'utf8'), signed.manifest);
  const file = await agent.call({ url: '/agent/v1/images/lab/versions/1/files/p1.caibx' });
  t.true(file.rawPayload.equals(content.index));

  const ids = content.chunks.map(({ id }) => id);
  const pack = await agent.post('packs/fetch', { image: 'lab', version: 1, ids });
  const received = new Map<string, Uint8Array>();
  for await (const { id, frame } of unpack(Readable.from([pack.rawPayload]), {
    maxFrame: frameLimit(CHUNK),
  })) {
    received.set(id, frame);
  }
  for (const { id, frame } of content.chunks)
    t.true(Buffer.from(frame).equals(received.get(id) ?? Buffer.of()));
});

test('chunks are plain files with immutable caching, and nothing else of the folder is served', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const content = makeImage(1);
  await capture(server, mac, 'lab', content);
  const [chunk] = content.chunks;
  const id = chunk?.id ?? '';
  const url = `/chunks/${id.slice(0, 4)}/${id}.cacnk`;
  const answer = await server.app.inject({ url });
  t.true(answer.rawPayload.equals(Buffer.from(chunk?.frame ?? [])));
  t.is(answer.headers['cache-control'], 'public, max-age=31536000, immutable');
  await writeFile(join(server.data, 'chunks', 'secret'), 'x');
  for (const bad of [
    '/chunks/secret',
    `/chunks/${id.slice(0, 4)}/../../server.key`,
    `/chunks/${id.slice(0, 4)}/..%2f..%2fserver.key`,
    `/chunks/0000/${id}.cacnk`,
    `/chunks/ffff/${'f'.repeat(64)}.cacnk`,
  ]) {
    const refused = await server.app.inject({ url: bad });
    t.true(refused.statusCode === 404 || refused.statusCode === 400, `${bad} ${refused.statusCode}`);
  }
});

test('a second capture sends only what is new and gets the next number', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const content = makeImage(4);
  await capture(server, mac, 'lab', content);
  const again = await capture(server, mac, 'lab', content);
  t.is(again.version, 2);
  t.deepEqual(again.missing, []);
  t.deepEqual(
    (await listImages(server))[0].versions.map((v: { version: number }) => v.version),
    [2, 1],
  );
});

test('a capture that was cut off goes on in the same upload and sends nothing twice', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const content = makeImage(4);
  const cut = await capture(server, mac, 'lab', content, { publish: false });
  const agent = await bootAgent(server, mac);
  t.is((await cut.publish()).statusCode, 409, 'the boot before is not believed');
  const { attempt } = (await agent.post('next')).json().task;
  t.is(attempt, 2);
  const opened = await agent.post('uploads', {
    taskId: cut.task.id,
    attempt,
    image: 'lab',
    estimateBytes: 1,
  });
  t.deepEqual(opened.json(), { uploadId: cut.uploadId, version: 1 });
  const ids = content.chunks.map(({ id }) => id);
  t.deepEqual((await agent.post('chunks/missing', { uploadId: cut.uploadId, ids })).json().missing, []);
  const published = await agent.post(`uploads/${cut.uploadId}/publish`, { manifest: cut.manifest });
  t.deepEqual(published.json(), { image: 'lab', version: 1 });
  // the answer was lost: confirmed, not made twice
  const repeated = await agent.post(`uploads/${cut.uploadId}/publish`, { manifest: cut.manifest });
  t.deepEqual(repeated.json(), { image: 'lab', version: 1 });
});

test('a crash while publishing leaves no version, and the same call makes it afterwards', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const cut = await capture(server, mac, 'lab', makeImage(2), { publish: false });
  // as after a kill between the signature and the manifest's name
  const folder = join(server.data, 'images/lab/1');
  await mkdir(folder, { recursive: true });
  await copyFile(join(server.data, 'uploads', cut.uploadId, 'p1.caibx'), join(folder, 'p1.caibx'));
  await writeFile(join(folder, 'manifest.json.sig'), 'half');
  await writeFile(join(folder, 'manifest.json.new'), '{');
  await server.close();
  const again = await testServer(t, { data: server.data });
  t.deepEqual(await listImages(again), []);
  const headers = { authorization: `Bearer ${cut.agent.session}` };
  const url = `/agent/v1/uploads/${cut.uploadId}/publish`;
  const answer = await again.app.inject({
    method: 'POST',
    url,
    headers,
    payload: { manifest: cut.manifest },
  });
  t.is(answer.statusCode, 200, answer.body);
  t.deepEqual((await readdir(folder)).sort(), ['manifest.json', 'manifest.json.sig', 'p1.caibx', 'p1.map']);
  t.deepEqual(await verifyVersion(again), {
    image: 'lab',
    version: 1,
    checked: 3,
    damaged: [],
    missing: [],
    files: [],
  });
});

test('nothing is published that is not whole', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const content = makeImage(3);
  const cut = await capture(server, mac, 'lab', content, { publish: false });
  const publish = async (manifest: object) => {
    const answer = await cut.agent.post(`uploads/${cut.uploadId}/publish`, { manifest });
    return answer.json().error?.code ?? 'published';
  };
  const partition = cut.manifest.disks[0]?.partitions[0];
  const withIndex = (index: object) => ({
    ...cut.manifest,
    disks: [
      { ...cut.manifest.disks[0], partitions: [{ ...partition, index: { ...partition?.index, ...index } }] },
    ],
  });
  t.is(await publish({ ...cut.manifest, image: 'other' }), 'IMAGE_INVALID');
  t.is(await publish({ ...cut.manifest, version: 7 }), 'IMAGE_INVALID');
  t.is(await publish({ ...cut.manifest, chunkSize: 131_072 }), 'IMAGE_INVALID');
  t.is(await publish(withIndex({ chunks: 2 })), 'IMAGE_INVALID');
  t.is(await publish(withIndex({ sha256: 'a'.repeat(64) })), 'IMAGE_INVALID');
  t.is(await publish(withIndex({ name: 'p2.caibx' })), 'IMAGE_INVALID');
  t.is(await publish({ ...cut.manifest, extra: 1 }), 'BAD_REQUEST');
  const id = content.chunks[1]?.id ?? '';
  const path = chunkPath(server, id);
  await copyFile(path, `${path}.kept`);
  await rm(path);
  t.is(await publish(cut.manifest), 'CHUNK_MISSING');
  t.deepEqual(await listImages(server), []);
  // and the server asks for it again
  const asked = await cut.agent.post('chunks/missing', { uploadId: cut.uploadId, ids: [id] });
  t.deepEqual(asked.json().missing, [id]);
});

test('a deploy reads its own version only', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const content = makeImage(2);
  await capture(server, mac, 'lab', content);
  const other = await addHost(server, 'pc2');
  await capture(server, other.mac, 'secret', makeImage(1));
  await addTask(server, 'pc1', 'deploy', { image: 'lab' });
  const agent = await bootAgent(server, mac);
  const ids = content.chunks.map(({ id }) => id);
  t.is(
    (await agent.post('packs/fetch', { image: 'lab', version: 1, ids })).statusCode,
    404,
    'before its lease',
  );
  await agent.post('next');
  for (const url of [
    '/agent/v1/images/secret/versions/1',
    '/agent/v1/images/lab/versions/2',
    '/agent/v1/images/lab/versions/1/files/p9.caibx',
    '/agent/v1/images/secret/versions/1/files/p1.caibx',
  ]) {
    t.is((await agent.call({ url })).statusCode, 404, url);
  }
  for (const url of [
    '/agent/v1/images/lab/versions/1/files/manifest.json.sig',
    '/agent/v1/images/lab/versions/1/files/..%2f..%2f..%2fserver.key',
    '/agent/v1/images/..%2f..%2fserver.key/versions/1',
  ]) {
    t.is((await agent.call({ url })).statusCode, 400, url);
  }
  const foreign = await agent.post('packs/fetch', { image: 'lab', version: 1, ids: ['e'.repeat(64)] });
  t.is(foreign.statusCode, 404);
});

test('what a machine was given or has made it may compare its disk with, and nothing else', async (t) => {
  const server = await testServer(t);
  const [maker, user] = [await addHost(server, 'pc1'), await addHost(server, 'pc2')];
  await capture(server, maker.mac, 'lab', makeImage(2));
  await capture(server, maker.mac, 'lab', makeImage(3));
  const task = await addTask(server, 'pc2', 'deploy', { image: 'lab', version: 1 });
  const agent = await bootAgent(server, user.mac);
  await agent.post('next');
  await agent.post(`tasks/${task.id}/result`, resultOf(1));
  const get = (path: string) => agent.call({ url: `/agent/v1/images/${path}` });
  t.deepEqual((await get('lab/versions')).json(), { versions: [1] });
  t.is((await get('lab/versions/1')).statusCode, 200);
  t.is((await get('lab/versions/1/files/p1.caibx')).statusCode, 200);
  t.is((await get('lab/versions/2')).statusCode, 404);
  t.is((await get('lab/versions/2/files/p1.caibx')).statusCode, 404);
  t.deepEqual((await get('other/versions')).json(), { versions: [] });
  const ids = makeImage(2).chunks.map(({ id }) => id);
  const chunks = await agent.post('packs/fetch', { image: 'lab', version: 1, ids });
  t.is(chunks.statusCode, 404, 'content is for a deploy that runs');
  await addTask(server, 'pc1', 'inventory');
  const made = await bootAgent(server, maker.mac);
  const own = await made.call({ url: '/agent/v1/images/lab/versions' });
  t.deepEqual(own.json(), { versions: [2, 1] });
});
