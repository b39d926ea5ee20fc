import { statSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { decideBoot } from '../../server-stub/decide.ts';
import {
  addHost,
  addTask,
  bootAgent,
  bootToken,
  checkInBody,
  newMac,
  showTask,
  testServer,
} from './support.ts';

const checkIn = (payload: object) => ({ method: 'POST' as const, url: '/agent/v1/check-in', payload });

test('a boot token works once: used, expired, invented or another machine’s is refused', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  await addTask(server, 'pc1', 'inventory');
  const token = await bootToken(server, mac);

  const foreign = await server.app.inject(checkIn(checkInBody(token, newMac())));
  t.is(foreign.statusCode, 401);
  t.is(foreign.json().error.code, 'UNAUTHORIZED');
  const first = await server.app.inject(checkIn(checkInBody(token, mac)));
  t.is(first.statusCode, 200);
  t.is(first.json().host.name, 'pc1');
  // the answer may have been lost on the wire: until the session is used, the token is good
  const again = await server.app.inject(checkIn(checkInBody(token, mac)));
  t.is(again.statusCode, 200);
  const headers = { authorization: `Bearer ${again.json().session}` };
  t.is((await server.app.inject({ method: 'POST', url: '/agent/v1/next', headers })).statusCode, 200);
  t.is((await server.app.inject(checkIn(checkInBody(token, mac)))).statusCode, 401);

  t.is((await server.app.inject(checkIn(checkInBody('x'.repeat(43), mac)))).statusCode, 401);
  const late = await bootToken(server, mac);
  server.clock.now += 2 * 3600_000;
  t.is((await server.app.inject(checkIn(checkInBody(late, mac)))).statusCode, 401);
});

test('an older session of a machine that has booted again has lost its lease', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  await addTask(server, 'pc1', 'inventory');
  const before = await bootAgent(server, mac);
  await before.post('next');
  const after = await bootAgent(server, mac);
  const refused = await before.post('next');
  t.is(refused.statusCode, 409);
  t.is(refused.json().error.code, 'LEASE_LOST');
  t.is((await after.post('next')).json().task.attempt, 2);
});

test('no session, no answer', async (t) => {
  const server = await testServer(t);
  for (const authorization of ['', 'Bearer', 'Bearer nonsense', `Bearer ${server.app.fog.adminToken}`]) {
    const answer = await server.app.inject({
      method: 'POST',
      url: '/agent/v1/next',
      headers: { authorization },
    });
    t.is(answer.statusCode, 401, authorization);
  }
});

test('a boot is decided by the machine’s open task', async (t) => {
  const server = await testServer(t);
  const { fog } = server.app;
  const { mac } = await addHost(server, 'pc1');
  t.deepEqual(await decideBoot(fog, { mac }), { kind: 'disk' });
  t.deepEqual(await decideBoot(fog, { mac: newMac() }), { kind: 'disk' });
  const { id } = await addTask(server, 'pc1', 'inventory');
  t.is((await decideBoot(fog, { mac })).kind, 'agent');
  await server.admin({ method: 'POST', url: `/api/tasks/${id}/cancel` });
  t.deepEqual(await decideBoot(fog, { mac }), { kind: 'disk' });
});

test('an unknown machine is registered at its first check-in where that is allowed, with an inventory', async (t) => {
  const server = await testServer(t, { registerUnknown: true });
  const mac = newMac();
  const agent = await bootAgent(server, mac);
  const next = (await agent.post('next')).json();
  t.is(next.task.type, 'inventory');
  t.is((await showTask(server, next.task.id)).state, 'running');
  const [host] = (await server.admin({ url: '/api/hosts' })).json();
  t.deepEqual(host.macs, [mac]);
  t.is(host.identity.product, 'Box');
});

test('a UUID that several machines share names none of them', async (t) => {
  const server = await testServer(t);
  const uuid = '03000200-0400-0500-0006-000700080009';
  for (const name of ['a', 'b']) {
    await server.admin({ method: 'POST', url: '/api/hosts', payload: { name, macs: [newMac()], uuid } });
  }
  await addTask(server, 'a', 'inventory');
  t.is((await decideBoot(server.app.fog, { uuid })).kind, 'disk');
});

test('secrets: key and token files are readable by root only, tokens are not in the database', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  await addTask(server, 'pc1', 'inventory');
  const token = await bootToken(server, mac);
  const { session } = (await server.app.inject(checkIn(checkInBody(token, mac)))).json();
  for (const file of ['admin-token', 'server.key']) {
    t.is(statSync(join(server.data, file)).mode & 0o777, 0o600);
  }
  const rows = JSON.stringify([
    await server.app.fog.db.selectFrom('boot_tokens').selectAll().execute(),
    await server.app.fog.db.selectFrom('sessions').selectAll().execute(),
  ]);
  t.false(rows.includes(token));
  t.false(rows.includes(session));
});
