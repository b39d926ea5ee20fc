import { createPublicKey, verify } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, truncate } from 'node:fs/promises';
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
  makeImage,
  octets,
  showTask,
  tarOf,
  testServer,
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
