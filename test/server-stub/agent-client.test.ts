import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import { serverSink, serverSource } from '../../agent/client/server-chunks.ts';
import { createTaskServer } from '../../agent/client/task-server.ts';
import type { TaskAnswer } from '../../server-stub/api.ts';
import { createApiClient } from '../../server-stub/cli/api-client.ts';
import { decideBoot } from '../../server-stub/decide.ts';
import {
  addHost,
  addTask,
  bootAgent,
  CHUNK,
  capture,
  checkInBody,
  makeImage,
  manifestOf,
  newMac,
  resultOf,
  tempFolder,
  testServer,
} from './support.ts';

const MAIN = new URL('../../server-stub/main.ts', import.meta.url).pathname;
const signal = new AbortController().signal;

const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
};

/** A server in a process of its own, that can be killed; ready when it answers. */
const spawnServer = async (t: ExecutionContext, data: string, port: number) => {
  const args = ['serve', '--data', data, '--host', '127.0.0.1', '--port', String(port), '--register-unknown'];
  const child = execa(process.execPath, [MAIN, ...args], { reject: false, stderr: 'ignore' });
  t.teardown(() => child.kill('SIGKILL'));
  await new Promise((resolve) => child.stdout.once('data', resolve));
  // a subprocess is thenable: returned bare, it would be waited for
  return {
    kill: async () => {
      child.kill('SIGKILL');
      await child;
    },
  };
};

test('the agent’s client and a server that is killed with SIGKILL in the middle of a capture and of a deploy', async (t) => {
  const data = await tempFolder(t);
  // a boot token is made by the boot routes; here without a boot loader
  const preparing = await testServer(t, { data, now: Date.now, registerUnknown: true });
  const mac = newMac();
  const boot = await decideBoot(preparing.app.fog, { mac });
  const { adminToken } = preparing.app.fog;
  await preparing.close();

  const port = await freePort();
  let server = await spawnServer(t, data, port);
  const restart = async (): Promise<void> => {
    await server.kill();
    server = await spawnServer(t, data, port);
  };
  const url = `http://127.0.0.1:${port}`;
  const api = createApiClient({ server: url, token: adminToken, data });
  const client = createTaskServer({ server: url });
  t.teardown(() => client.close());
  const body = checkInBody(boot.kind === 'agent' ? boot.token : '', mac);
  const { host } = await client.checkIn(
    { ...body, identity: { ...body.identity, firmware: 'uefi', secureBoot: 'off' } },
    signal,
  );
  const inventory = await client.next(signal);
  t.true(inventory.kind === 'task' && inventory.task.type === 'inventory');
  if (inventory.kind === 'task') await client.result(inventory.task.id, resultOf(1) as never, signal);

  const content = makeImage(150);
  const traffic = { sent: 0, received: 0 };
  const { id: taskId } = await api.post<TaskAnswer>('/api/tasks', {
    ...{ host: host.id, type: 'capture', params: { image: 'lab' } },
  });
  t.is((await client.next(signal)).kind, 'task');
  const { uploadId, version } = await client.openUpload(
    { taskId, attempt: 1, image: 'lab', estimateBytes: 1 },
    signal,
  );
  const sink = serverSink(client, uploadId, traffic);
  const missing = await sink.missing(
    content.chunks.map(({ id }) => id),
    signal,
  );
  t.is(missing.size, content.chunks.length);
  await sink.put(content.chunks.slice(0, 64), signal);
  const [, left] = await Promise.all([restart(), sink.put(content.chunks.slice(64, 128), signal)]);
  t.is(left, undefined);
  const again = await sink.missing(
    content.chunks.map(({ id }) => id),
    signal,
  );
  t.is(again.size, content.chunks.length - 128, 'what was acknowledged is there');
  await sink.put(content.chunks.slice(128), signal);
  const map = Buffer.from('map');
  await client.putFile(uploadId, 'p1.caibx', content.index, signal);
  await client.putFile(uploadId, 'p1.map', map, signal);
  await restart();
  await client.publish(uploadId, manifestOf('lab', version, content, map), signal);
  await client.result(taskId, resultOf(1) as never, signal);

  const deploy = await api.post<TaskAnswer>('/api/tasks', {
    host: host.id,
    type: 'deploy',
    params: { image: 'lab' },
  });
  const next = await client.next(signal);
  t.true(next.kind === 'task' && next.task.id === deploy.id);
  const source = serverSource({ server: client, image: 'lab', version, chunkSize: CHUNK, traffic });
  const wanted = new Map(content.chunks.map(({ id, frame }) => [id, frame]));
  let count = 0;
  for await (const { id, frame } of source.fetch([...wanted.keys()], signal)) {
    t.true(Buffer.from(frame).equals(wanted.get(id) ?? Buffer.of()));
    wanted.delete(id);
    count += 1;
    if (count === 20) await restart();
  }
  t.is(wanted.size, 0);
  await client.result(deploy.id, resultOf(1) as never, signal);
  t.like(await api.get<TaskAnswer>(`/api/tasks/${deploy.id}`), { state: 'succeeded', attempt: 1 });
});

test('an agent that hangs up in the middle of a pack does not disturb the server', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const content = makeImage(200);
  await capture(server, mac, 'lab', content);
  await addTask(server, 'pc1', 'deploy', { image: 'lab' });
  const agent = await bootAgent(server, mac);
  await agent.post('next');
  await server.app.listen({ port: 0, host: '127.0.0.1' });
  const { port } = server.app.server.address() as AddressInfo;
  const json = JSON.stringify({ image: 'lab', version: 1, ids: content.chunks.map(({ id }) => id) });
  for (let round = 0; round < 3; round += 1) {
    await new Promise<void>((resolve) => {
      const headers = { authorization: `Bearer ${agent.session}`, 'content-type': 'application/json' };
      const options = { port, host: '127.0.0.1', path: '/agent/v1/packs/fetch', method: 'POST', headers };
      const client = request(options, (answer) => answer.once('data', () => client.destroy()));
      client.on('error', () => undefined).on('close', resolve);
      client.end(json);
    });
  }
  t.is((await server.app.inject({ url: '/healthz' })).statusCode, 200);
  t.is((await agent.post('packs/fetch', JSON.parse(json))).statusCode, 200);
});

test('a data folder has one server', async (t) => {
  const server = await testServer(t);
  await t.throwsAsync(testServer(t, { data: server.data }), { message: /another server is using it/ });
});
