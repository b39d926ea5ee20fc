import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { createTaskServer } from '../../agent/client/task-server.ts';
import { hasCode } from '../../agent/errors.ts';
import { type TaskResult, taskResultSchema } from '../../agent/protocol/index.ts';
import { root } from '../../scripts/lib/root.ts';
import { type Child, startChild } from '../../scripts/lib/vm/child.ts';
import type { TaskAnswer } from '../../server-stub/api.ts';
import { verifyCertificate } from '../../server-stub/certificate/verify.ts';
import { createApiClient } from '../../server-stub/cli/api-client.ts';
import {
  addHost,
  addTask,
  bootAgent,
  failureOf,
  resultOf,
  tempFolder,
  testServer,
  wipedDisk,
  wipeOf,
} from '../server-stub/support.ts';

const disks = Array.from({ length: 200 }, (_, at) =>
  wipedDisk({ facts: { ...wipedDisk().facts, name: `sd${at}`, serial: `S${at}` } }),
);
const [erased, notErased] = [
  resultOf(1, wipeOf(...disks)),
  { ...failureOf(1, 'WIPE_INCOMPLETE'), ...wipeOf(...disks, wipedDisk({ status: 'failed' })) },
].map((result): TaskResult => taskResultSchema.parse(result)) as [TaskResult, TaskResult];

/** when the server dies, as shares of the time that an answer took before */
const moments = [0, 0.2, 0.4, 0.6, 0.8, 0.9, 1, 1.5];

test('a server that is killed while a wipe’s result comes in has the end and its certificate, or neither; sent again, both', async (t) => {
  const data = await tempFolder(t);
  const prepared = await testServer(t, { data });
  const { publicKey } = prepared.app.fog.key;
  const works: { id: string; session: string }[] = [];
  for (let at = 0; at <= moments.length; at++) {
    const host = await addHost(prepared, `lab-${at}`);
    const { id } = await addTask(prepared, host.id, 'wipe-normal', { allInternal: true });
    const agent = await bootAgent(prepared, host.mac);
    await agent.post('next');
    works.push({ id, session: agent.session });
  }
  await prepared.close();

  let [server, port] = await startServer(data, 0);
  t.teardown(() => server.kill());
  const url = `http://127.0.0.1:${port}`;
  const api = createApiClient({ server: url, data });
  const stateOf = async (id: string): Promise<string> =>
    (await api.get<TaskAnswer>(`/api/tasks/${id}`)).state;
  const certificateOf = (id: string): Promise<string | undefined> =>
    api.text(`/api/tasks/${id}/certificate`).catch((error: unknown) => {
      if (hasCode(error, 'NOT_FOUND')) return undefined;
      throw error;
    });

  const send = ({ id, session }: (typeof works)[number], result: TaskResult) => {
    const client = createTaskServer({ server: url });
    client.resumeSession(session);
    return client.result(id, result, new AbortController().signal).finally(client.close);
  };
  const [first, ...others] = works as [(typeof works)[number], ...typeof works];
  const began = performance.now();
  await send(first, erased);
  const answerTime = performance.now() - began;

  const found: string[] = [];
  for (const [at, work] of others.entries()) {
    const { id } = work;
    const result = at % 2 === 0 ? erased : notErased;
    const sent = send(work, result);
    await sleep(answerTime * (moments[at] ?? 1));
    await server.kill();
    [server] = await startServer(data, port);
    // the machine may send it again meanwhile: each of these may come true, none may cease to be
    const before = await stateOf(id);
    const certificate = await certificateOf(id);
    if (before !== 'running') t.truthy(certificate, `${before} without a certificate`);
    if (certificate) t.is(await stateOf(id), result.outcome, 'a certificate of a task that has not ended');
    found.push(before);

    await sent;
    t.is(await stateOf(id), result.outcome);
    const text = await certificateOf(id);
    if (certificate) t.is(text, certificate, 'never signed twice');
    t.is(verifyCertificate(text ?? '', publicKey).erased, result === erased);
  }
  t.log(`after the kill: ${found.join(', ')}`);
});

const startServer = async (data: string, port: number): Promise<[Child, number]> => {
  const server = startChild(process.execPath, [
    join(root, 'server-stub/main.ts'),
    ...['serve', '--data', data, '--host', '127.0.0.1', '--port', String(port), '--log-level', 'error'],
  ]);
  for (let tries = 0; tries < 600 && server.isRunning(); tries++) {
    const found = /http:\/\/127\.0\.0\.1:(\d+)/.exec(server.output());
    if (found) return [server, Number(found[1])];
    await sleep(50);
  }
  throw new Error(`Cannot start the server: ${server.output()}`);
};
