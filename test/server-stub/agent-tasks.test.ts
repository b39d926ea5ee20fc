import test from 'ava';
import {
  addHost,
  addTask,
  bootAgent,
  failureOf,
  progressOf,
  resultOf,
  showTask,
  testServer,
} from './support.ts';

const setUp = async (t: Parameters<typeof testServer>[0]) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const task = await addTask(server, 'pc1', 'capture', { image: 'lab' });
  const agent = await bootAgent(server, mac);
  const next = (await agent.post('next')).json();
  return { server, mac, task, agent, next };
};

test('a task runs, reports, logs and ends', async (t) => {
  const server = await testServer(t);
  const { mac } = await addHost(server, 'pc1');
  const { id } = await addTask(server, 'pc1', 'inventory');
  const agent = await bootAgent(server, mac);
  const next = (await agent.post('next')).json();
  t.like(next, { kind: 'task', task: { id, type: 'inventory', attempt: 1, after: 'reboot', durable: null } });
  t.deepEqual((await agent.post(`tasks/${id}/heartbeat`, { attempt: 1 })).json(), { cancel: false });
  t.deepEqual((await agent.post(`tasks/${id}/progress`, progressOf(1))).json(), { cancel: false });
  t.like(await showTask(server, id), { state: 'running', progress: { step: 'transfer', done: 10 } });

  const log = (from: number, lines: string[]) => agent.post(`tasks/${id}/log`, { attempt: 1, from, lines });
  await log(0, ['a', 'b']);
  // an upload that is repeated because its answer was lost
  await log(0, ['a', 'b', 'c']);
  const text = await server.admin({ url: `/api/tasks/${id}/log?format=text` });
  t.is(text.body, 'a\nb\nc\n');

  t.is((await agent.post(`tasks/${id}/result`, resultOf(1))).statusCode, 200);
  const ended = await showTask(server, id);
  t.like(ended, { state: 'succeeded', endedAt: '2026-01-02T03:04:05.000Z' });
  t.deepEqual((await server.admin({ url: `/api/tasks/${id}/result` })).json(), resultOf(1));
  t.deepEqual((await agent.post('next')).json(), { kind: 'nothing' });
});

test('success without evidence is refused by the schema', async (t) => {
  const { server, task, agent } = await setUp(t);
  const answer = await agent.post(`tasks/${task.id}/result`, resultOf(1, { evidence: [] }));
  t.is(answer.statusCode, 400);
  t.is(answer.json().error.code, 'BAD_REQUEST');
  t.is((await showTask(server, task.id)).state, 'running');
});

test('a capture that has published nothing did not succeed, whatever it says', async (t) => {
  const { server, task, agent } = await setUp(t);
  t.is((await agent.post(`tasks/${task.id}/result`, resultOf(1))).statusCode, 400);
  t.is((await showTask(server, task.id)).state, 'running');
  t.is((await agent.post(`tasks/${task.id}/result`, failureOf(1, 'TOOL_FAILED'))).statusCode, 200);
  t.is((await showTask(server, task.id)).state, 'failed');
});

test('an ended task never changes: the same result is confirmed, another is refused', async (t) => {
  const { server, task, agent } = await setUp(t);
  const failure = failureOf(1, 'TOOL_FAILED');
  await agent.post(`tasks/${task.id}/result`, failure);
  t.is((await agent.post(`tasks/${task.id}/result`, failure)).statusCode, 200);
  const cancelled = await agent.post(`tasks/${task.id}/result`, { ...failure, outcome: 'cancelled' });
  t.is(cancelled.statusCode, 409);
  t.is(cancelled.json().error.code, 'CONFLICT');
  t.is((await agent.post(`tasks/${task.id}/heartbeat`, { attempt: 1 })).json().error.code, 'LEASE_LOST');
  t.is((await server.admin({ method: 'POST', url: `/api/tasks/${task.id}/cancel` })).statusCode, 409);
  t.is((await showTask(server, task.id)).state, 'failed');
});

test('reports of an attempt that is not the current one have lost the lease', async (t) => {
  const { task, agent } = await setUp(t);
  for (const [path, body] of [
    ['heartbeat', { attempt: 2 }],
    ['progress', progressOf(2)],
    ['result', failureOf(2, 'TOOL_FAILED')],
  ] as const) {
    const answer = await agent.post(`tasks/${task.id}/${path}`, body);
    t.is(answer.statusCode, 409, path);
    t.is(answer.json().error.code, 'LEASE_LOST');
  }
});

test('a machine sees its own task only', async (t) => {
  const { server, task } = await setUp(t);
  const { mac } = await addHost(server, 'pc2');
  await addTask(server, 'pc2', 'inventory');
  const other = await bootAgent(server, mac);
  for (const [path, body] of [
    ['heartbeat', { attempt: 1 }],
    ['progress', progressOf(1)],
    ['log', { attempt: 1, from: 0, lines: ['x'] }],
    ['result', failureOf(1, 'TOOL_FAILED')],
  ] as const) {
    const answer = await other.post(`tasks/${task.id}/${path}`, body);
    t.is(answer.statusCode, 404, path);
  }
  const upload = { taskId: task.id, attempt: 1, image: 'lab', estimateBytes: 1 };
  t.is((await other.post('uploads', upload)).statusCode, 404);
  t.is((await showTask(server, task.id)).state, 'running');
});

test('cancel reaches a running task by every answer, and ends a queued one at once', async (t) => {
  const { server, task, agent } = await setUp(t);
  const second = await addTask(server, 'pc1', 'inventory');
  await server.admin({ method: 'POST', url: `/api/tasks/${second.id}/cancel` });
  t.is((await showTask(server, second.id)).state, 'cancelled');
  const asked = await server.admin({ method: 'POST', url: `/api/tasks/${task.id}/cancel` });
  t.like(asked.json(), { state: 'running', cancel: true });
  t.deepEqual((await agent.post(`tasks/${task.id}/heartbeat`, { attempt: 1 })).json(), { cancel: true });
  t.deepEqual((await agent.post(`tasks/${task.id}/progress`, progressOf(1))).json(), { cancel: true });
  await agent.post(`tasks/${task.id}/result`, { ...failureOf(1, 'TASK_CANCELLED'), outcome: 'cancelled' });
  t.is((await showTask(server, task.id)).state, 'cancelled');
});

test('silent after the lease, the same attempt while its machine goes on, lost after 30 minutes', async (t) => {
  const { server, task, agent } = await setUp(t);
  const { board } = server.app.fog;
  server.clock.now += 61_000;
  await board.sweep();
  t.like(await showTask(server, task.id), { state: 'silent', attempt: 1 });
  await agent.post(`tasks/${task.id}/heartbeat`, { attempt: 1 });
  t.like(await showTask(server, task.id), { state: 'running', attempt: 1, silentSince: null });
  server.clock.now += 61_000;
  await board.sweep();
  server.clock.now += 30 * 60_000;
  await board.sweep();
  t.like(await showTask(server, task.id), {
    state: 'lost',
    reason: 'the machine did not come back in 30 minutes',
  });
  const late = await agent.post(`tasks/${task.id}/result`, failureOf(1, 'TOOL_FAILED'));
  t.is(late.json().error.code, 'LEASE_LOST');
});

test('a machine that is cut off and boots again gets its durable ranges with the next attempt', async (t) => {
  const { server, mac, task, agent } = await setUp(t);
  const durable = { binding: 'a'.repeat(64), ranges: { p1: [[0, 41]] } };
  await agent.post(`tasks/${task.id}/progress`, progressOf(1, { durable }));
  // a report without ranges does not forget those before it
  await agent.post(`tasks/${task.id}/progress`, progressOf(1));
  const again = await bootAgent(server, mac);
  t.is((await showTask(server, task.id)).state, 'silent');
  t.like((await again.post('next')).json().task, { id: task.id, attempt: 2, durable });
});

test('a restart of the server forgets nothing and extends the lease', async (t) => {
  const { server, task, agent } = await setUp(t);
  const durable = { binding: 'b'.repeat(64), ranges: { p1: [[0, 1]] } };
  await agent.post(`tasks/${task.id}/progress`, progressOf(1, { durable }));
  await server.close();
  const again = await testServer(t, { data: server.data });
  again.clock.now += 10 * 60_000;
  // started late: the lease counts from now
  await again.close();
  const later = await testServer(t, { data: server.data, now: () => again.clock.now });
  const headers = { authorization: `Bearer ${agent.session}` };
  const post = (path: string, payload?: object) =>
    later.app.inject({ method: 'POST', url: `/agent/v1/${path}`, headers, ...(payload ? { payload } : {}) });
  again.clock.now += 119_000;
  await later.app.fog.board.sweep();
  t.is((await showTask(later, task.id)).state, 'running');
  t.like(await showTask(later, task.id), { progress: { done: 10 } });
  t.deepEqual((await post(`tasks/${task.id}/heartbeat`, { attempt: 1 })).json(), { cancel: false });
  t.like((await post('next')).json().task, { attempt: 1, durable });
});

test('eleven machines: ten image, one waits and is told its place, then runs', async (t) => {
  const server = await testServer(t);
  const agents = [];
  for (let number = 1; number <= 12; number += 1) {
    const { mac } = await addHost(server, `pc${number}`);
    const task = await addTask(server, `pc${number}`, 'capture', { image: `i${number}` });
    agents.push({ task, agent: await bootAgent(server, mac) });
  }
  const answers = [];
  for (const { agent } of agents) answers.push((await agent.post('next')).json());
  t.is(answers.filter(({ kind }) => kind === 'task').length, 10);
  t.deepEqual(answers[10], { kind: 'waiting', place: 1, of: 1 });
  t.deepEqual(answers[11], { kind: 'waiting', place: 2, of: 2 });
  t.deepEqual((await showTask(server, agents[11]?.task.id ?? ''))['place'], { place: 2, of: 2 });
  const first = agents[0];
  await first?.agent.post(`tasks/${first.task.id}/result`, failureOf(1, 'TOOL_FAILED'));
  t.deepEqual((await agents[11]?.agent.post('next'))?.json(), { kind: 'waiting', place: 2, of: 2 });
  t.is((await agents[10]?.agent.post('next'))?.json().kind, 'task');
});

test('a poll is held open and answered when a task is added', async (t) => {
  const server = await testServer(t, { settings: { nothingGraceMs: 60_000 } });
  const { mac } = await addHost(server, 'pc1');
  const { id } = await addTask(server, 'pc1', 'inventory');
  const agent = await bootAgent(server, mac);
  await agent.post('next');
  await agent.post(`tasks/${id}/result`, resultOf(1));
  const polled = agent.post('next');
  const second = await addTask(server, 'pc1', 'inventory');
  t.is((await polled).json().task.id, second.id);
});

test('a log that floods is cut, an attempt that never was is refused', async (t) => {
  const server = await testServer(t, { settings: { logLines: 3 } });
  const { mac } = await addHost(server, 'pc1');
  const { id } = await addTask(server, 'pc1', 'inventory');
  const agent = await bootAgent(server, mac);
  await agent.post('next');
  await agent.post(`tasks/${id}/log`, { attempt: 1, from: 0, lines: ['1', '2', '3', '4', '5'] });
  t.is((await server.admin({ url: `/api/tasks/${id}/log?format=text` })).body, '1\n2\n3\n');
  t.is((await agent.post(`tasks/${id}/log`, { attempt: 9, from: 0, lines: ['x'] })).statusCode, 400);
});

test('malformed and oversized bodies are refused with the reason', async (t) => {
  const { agent, task } = await setUp(t);
  const wrong = await agent.post(`tasks/${task.id}/progress`, { attempt: 1, step: 'x' });
  t.is(wrong.statusCode, 400);
  t.regex(wrong.json().error.message, /done/);
  const text = await agent.call({
    method: 'POST',
    url: `/agent/v1/tasks/${task.id}/heartbeat`,
    headers: { 'content-type': 'application/json' },
    payload: '{"attempt":',
  });
  t.is(text.statusCode, 400);
  t.is(text.json().error.code, 'BAD_REQUEST');
  const large = await agent.post(`tasks/${task.id}/heartbeat`, { attempt: 1, fill: 'x'.repeat(2_000_000) });
  t.is(large.statusCode, 413);
  t.is(large.json().error.code, 'BAD_REQUEST');
  const many = { attempt: 1, from: 0, lines: Array.from({ length: 1001 }, () => 'x') };
  t.is((await agent.post(`tasks/${task.id}/log`, many)).statusCode, 400);
});
