import { randomUUID } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import pino from 'pino';
import { assignedTaskSchema } from '../../agent/protocol/index.ts';
import { capture } from '../../agent/tasks/capture.ts';
import type { TaskContext, TaskOf } from '../../agent/tasks/context.ts';
import { addHost, bootAgent, failureOf, progressOf, showTask, tempFolder, testServer } from './support.ts';

/** Every file below a folder that holds a text. */
const filesWith = async (folder: string, text: string): Promise<string[]> => {
  const found: string[] = [];
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    if ((await readFile(path)).includes(text)) found.push(path);
  }
  return found;
};

test('keys reach the machine that runs the task, and nothing else: no file, no answer, no log', async (t) => {
  const key = `canary "${randomUUID()}"`;
  const logged: string[] = [];
  const data = await tempFolder(t);
  const log = pino({ level: 'trace' }, { write: (line: string) => void logged.push(line) });
  const server = await testServer(t, { data, log });
  const { mac } = await addHost(server, 'pc1');
  const body = { host: 'pc1', type: 'capture', params: { image: 'lab' }, secrets: { unlock: [key] } };
  const added = await server.admin({ method: 'POST', url: '/api/tasks', payload: body });
  t.is(added.statusCode, 201);
  const { id, params } = added.json();
  t.true(params.unlock);
  const agent = await bootAgent(server, mac);
  const next = (await agent.post('next')).json();
  t.deepEqual(next.task.secrets, { unlock: [key] });
  await agent.post(`tasks/${id}/progress`, progressOf(1));

  const uuid = key.slice(8, -1);
  for (const url of [`/api/tasks/${id}`, '/api/tasks', `/api/tasks/${id}/log?format=text`, '/api/hosts']) {
    t.false((await server.admin({ url })).body.includes(uuid), url);
  }
  // a machine that has started anew is given them again, until the task has ended
  const again = await bootAgent(server, mac);
  t.deepEqual((await again.post('next')).json().task.secrets, { unlock: [key] });
  await again.post(`tasks/${id}/result`, failureOf(2, 'UNLOCK_FAILED'));
  t.is((await showTask(server, id)).state, 'failed');
  t.deepEqual(await filesWith(data, uuid), []);
  t.true(logged.length > 0);
  t.false(logged.join('').includes(uuid));
});

test('a server that was restarted has no keys any more, and the machine can tell', async (t) => {
  const data = await tempFolder(t);
  const first = await testServer(t, { data });
  const { mac } = await addHost(first, 'pc1');
  const body = { host: 'pc1', type: 'capture', params: { image: 'lab' }, secrets: { unlock: ['key'] } };
  await first.admin({ method: 'POST', url: '/api/tasks', payload: body });
  await first.close();
  const second = await testServer(t, { data });
  const { task } = (await (await bootAgent(second, mac)).post('next')).json();
  t.true(task.params.unlock);
  t.is(task.secrets, undefined);
  // which is what the agent's capture looks at before it does anything
  const context = {} as TaskContext;
  await t.throwsAsync(
    async () => await capture(assignedTaskSchema.parse(task) as TaskOf<'capture'>, context),
    {
      code: 'UNLOCK_FAILED',
      message: /add the task again with its keys/,
    },
  );
});

test('keys are for captures, and a refusal does not repeat them', async (t) => {
  const server = await testServer(t);
  await addHost(server, 'pc1');
  const add = (body: object) =>
    server.admin({ method: 'POST', url: '/api/tasks', payload: { host: 'pc1', ...body } });
  const key = randomUUID();
  for (const body of [
    { type: 'inventory', secrets: { unlock: [key] } },
    { type: 'capture', params: { image: 'lab' }, secrets: { unlock: [key, 7] } },
    { type: 'capture', params: { image: 'lab' }, secrets: { unlock: [] } },
    { type: 'capture', params: { image: 'lab' }, secrets: { [key]: [key] } },
    { type: 'capture', params: { image: 'lab', unlock: true } },
  ]) {
    const answer = await add(body);
    t.is(answer.statusCode, 400, JSON.stringify(body));
    t.false(answer.body.includes(key) && !('secrets' in body && key in (body.secrets ?? {})));
  }
});
