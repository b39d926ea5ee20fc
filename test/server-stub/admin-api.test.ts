import { mkdir, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import test from 'ava';
import {
  addHost,
  addTask,
  bootAgent,
  newMac,
  progressOf,
  resultOf,
  sha256,
  tempFolder,
  testServer,
} from './support.ts';

test('every admin route refuses a missing and a wrong token', async (t) => {
  const server = await testServer(t);
  const openapi = (await server.admin({ url: '/api/openapi.json' })).json() as {
    paths: Record<string, Record<string, unknown>>;
  };
  const routes = Object.entries(openapi.paths).flatMap(([url, methods]) =>
    Object.keys(methods).map((method) => ({
      method: method.toUpperCase(),
      url: url.replaceAll(/\{\w+\}/g, 'x'),
    })),
  );
  const guarded = routes.filter(({ url }) => url.startsWith('/api/') && url !== '/api/session');
  t.true(guarded.length >= 15);
  for (const { method, url } of [...guarded, { method: 'GET', url: '/api/events' }]) {
    for (const authorization of [undefined, 'Bearer wrong', 'Basic eDp5']) {
      const answer = await server.app.inject({
        method: method as 'GET',
        url,
        headers: authorization ? { authorization } : {},
      });
      t.is(answer.statusCode, 401, `${method} ${url}`);
      t.is(answer.json().error.code, 'UNAUTHORIZED');
    }
  }
  const agents = routes.filter(({ url }) => url.startsWith('/agent/') && !url.endsWith('check-in'));
  t.true(agents.length >= 12);
  for (const { method, url } of agents) {
    t.is((await server.app.inject({ method: method as 'GET', url })).statusCode, 401, url);
  }
});

test('a signed-in browser may read, not write', async (t) => {
  const server = await testServer(t);
  const sign = (token: string) =>
    server.app.inject({ method: 'POST', url: '/api/session', payload: { token } });
  t.is((await sign('wrong')).statusCode, 401);
  const answer = await sign(server.app.fog.adminToken);
  const set = String(answer.headers['set-cookie']);
  t.regex(set, /^fog_session=[\w-]{43}; Path=\/; HttpOnly; SameSite=Strict; Max-Age=43200$/);
  const headers = { cookie: set.split(';')[0] ?? '' };
  t.is((await server.app.inject({ url: '/api/hosts', headers })).statusCode, 200);
  const payload = { name: 'x', macs: [newMac()] };
  t.is((await server.app.inject({ method: 'POST', url: '/api/hosts', headers, payload })).statusCode, 401);
  server.clock.now += 13 * 3600_000;
  t.is((await server.app.inject({ url: '/api/hosts', headers })).statusCode, 401);
});

test('hosts are added, found by id, name and MAC, and removed', async (t) => {
  const server = await testServer(t);
  const { id, mac } = await addHost(server, 'Room 5 / PC 1');
  for (const key of [id, 'Room 5 / PC 1', mac.toUpperCase().replaceAll(':', '-')]) {
    const answer = await server.admin({ url: `/api/hosts/${encodeURIComponent(key)}` });
    t.is(answer.json().id, id, key);
  }
  const add = async (payload: object) =>
    (await server.admin({ method: 'POST', url: '/api/hosts', payload })).json().error?.code;
  t.is(await add({ name: 'other', macs: [mac] }), 'CONFLICT');
  t.is(await add({ name: 'Room 5 / PC 1', macs: [newMac()] }), 'CONFLICT');
  t.is(await add({ name: 'a\u001b[2Jb', macs: [newMac()] }), 'BAD_REQUEST');
  t.is(await add({ name: 'c', macs: [] }), 'BAD_REQUEST');
  t.is(await add({ name: 'c', macs: [newMac()], unknown: 1 }), 'BAD_REQUEST');
  await addTask(server, id, 'inventory');
  const remove = () => server.admin({ method: 'DELETE', url: `/api/hosts/${id}` });
  t.is((await remove()).statusCode, 409, 'it has an open task');
  const [task] = (await server.admin({ url: '/api/tasks' })).json();
  await server.admin({ method: 'POST', url: `/api/tasks/${task.id}/cancel` });
  t.is((await remove()).statusCode, 204);
  t.is((await server.admin({ url: `/api/hosts/${id}` })).statusCode, 404);
});

test('a task is refused when its parameters are wrong, and complete when it is accepted', async (t) => {
  const server = await testServer(t);
  const mac = newMac();
  const disk = { serial: 'S1' };
  await server.admin({ method: 'POST', url: '/api/hosts', payload: { name: 'pc', macs: [mac], disk } });
  const add = async (payload: object) =>
    (await server.admin({ method: 'POST', url: '/api/tasks', payload })).json();
  t.is((await add({ host: 'nobody', type: 'inventory' })).error.code, 'NOT_FOUND');
  t.is((await add({ host: 'pc', type: 'explode' })).error.code, 'BAD_REQUEST');
  t.is((await add({ host: 'pc', type: 'deploy', params: { image: 'lab' } })).error.code, 'IMAGE_NOT_FOUND');
  t.is(
    (await add({ host: 'pc', type: 'deploy', params: { image: 'lab', version: 1 } })).error.code,
    'IMAGE_NOT_FOUND',
  );
  t.is((await add({ host: 'pc', type: 'capture' })).error.code, 'BAD_REQUEST');
  t.is((await add({ host: 'pc', type: 'capture', params: { image: 'CON' } })).error.code, 'BAD_REQUEST');
  t.is(
    (await add({ host: 'pc', type: 'capture', params: { image: 'a', disc: 1 } })).error.code,
    'BAD_REQUEST',
  );
  t.is(
    (await add({ host: 'pc', type: 'capture', params: { image: 'a', disk: {} } })).error.code,
    'BAD_REQUEST',
  );
  const task = await add({ host: mac, type: 'capture', params: { image: 'lab' } });
  t.deepEqual(task.params, { image: 'lab', level: 3, rescue: false, raw: false, disk });
  t.like(task, { state: 'queued', after: 'reboot', attempt: 0 });
});

test('what a viewer sees comes at once: states and progress as server-sent events', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  await server.app.listen({ port: 0, host: '127.0.0.1' });
  const { port } = server.app.server.address() as AddressInfo;
  const text = { received: '' };
  const wait = (pattern: RegExp): Promise<void> =>
    new Promise((resolve) => {
      const look = (): void => {
        if (pattern.test(text.received)) resolve();
        else setImmediate(look);
      };
      look();
    });
  const headers = { authorization: `Bearer ${server.app.fog.adminToken}` };
  const client = request({ port, host: '127.0.0.1', path: '/api/events', headers }, (answer) => {
    t.is(answer.headers['content-type'], 'text/event-stream');
    answer.setEncoding('utf8').on('data', (part: string) => {
      text.received += part;
    });
  });
  client.on('error', () => undefined).end();
  t.teardown(() => client.destroy());
  await wait(/event: hello/);
  const { id } = await addTask(server, 'pc1', 'inventory');
  await wait(new RegExp(`event: task\ndata: .*${id}.*queued`));
  const agent = await bootAgent(server, mac);
  await agent.post('next');
  await wait(new RegExp(`event: task\ndata: .*${id}.*running`));
  await agent.post(`tasks/${id}/progress`, progressOf(1));
  await wait(new RegExp(`event: progress\ndata: .*${id}.*"done":10`));
  await agent.post(`tasks/${id}/result`, resultOf(1));
  await wait(new RegExp(`event: task\ndata: .*${id}.*succeeded`));
  const recent = (await server.admin({ url: '/api/events/recent' })).json();
  t.deepEqual(
    recent
      .filter((event: { kind: string }) => event.kind === 'task')
      .map((event: { data: { state: string } }) => event.data.state),
    ['succeeded', 'running', 'queued'],
  );
  // an open stream does not keep the server from closing
  await server.close();
});

test('progress is written to the database from time to time and when the server closes, not each time', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const { id } = await addTask(server, 'pc1', 'inventory');
  const agent = await bootAgent(server, mac);
  await agent.post('next');
  await agent.post(`tasks/${id}/progress`, progressOf(1));
  const inDatabase = async () =>
    (
      await server.app.fog.db
        .selectFrom('tasks')
        .select('progress_json')
        .where('id', '=', id)
        .executeTakeFirst()
    )?.progress_json;
  await server.app.fog.board.sweep();
  t.is(await inDatabase(), null);
  server.clock.now += 11_000;
  await server.app.fog.board.sweep();
  t.regex((await inDatabase()) ?? '', /"done":10/);
});

test('a defect shows nothing of itself to the client', async (t) => {
  const server = await testServer(t);
  await server.app.fog.db.schema.dropTable('upload_pins').execute();
  await server.app.fog.db.schema.dropTable('host_macs').execute();
  const answer = await server.admin({ url: '/api/hosts' });
  t.is(answer.statusCode, 500);
  t.deepEqual(answer.json().error.code, 'INTERNAL');
  t.false(answer.body.includes('host_macs'));
});

test('too many check-ins from one address are put off, not refused for good', async (t) => {
  const server = await testServer(t, { settings: { openRequestsPerMinute: 2 } });
  const attempt = () => server.app.inject({ method: 'POST', url: '/agent/v1/check-in', payload: {} });
  await attempt();
  await attempt();
  const answer = await attempt();
  t.is(answer.statusCode, 429);
  t.like(answer.json().error, { code: 'SERVER_ERROR', retryable: true });
});

test('tool packs are listed and sent by hash', async (t) => {
  const artefacts = await tempFolder(t);
  const body = 'squashfs';
  await mkdir(join(artefacts, 'packs'));
  await writeFile(join(artefacts, 'packs', `${sha256(body)}.squashfs`), body);
  const packs = { memtester: { size: body.length, sha256: sha256(body) } };
  await writeFile(join(artefacts, 'artefacts.json'), JSON.stringify({ packs }));
  const server = await testServer(t, { artefacts });
  const { mac } = await addHost(server, 'pc1');
  await addTask(server, 'pc1', 'inventory');
  const agent = await bootAgent(server, mac);
  t.deepEqual((await agent.call({ url: '/agent/v1/tool-packs' })).json(), [
    { name: 'memtester', ...packs.memtester },
  ]);
  t.is((await agent.call({ url: `/agent/v1/tool-packs/${sha256(body)}` })).body, body);
  t.is((await agent.call({ url: `/agent/v1/tool-packs/${'0'.repeat(64)}` })).statusCode, 404);
  const boot = await server.app.inject({ url: `/boot/ipxe?mac=${mac}`, headers: { host: '10.0.0.1:8080' } });
  t.is(boot.statusCode, 200);
  t.regex(boot.body, /^#!ipxe/);
});
