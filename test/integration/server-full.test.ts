import { mkdir, readdir, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import test, { type ExecutionContext } from 'ava';
import { unpack } from '../../agent/image/pack.ts';
import { run } from '../../agent/process/run.ts';
import { frameLimit } from '../../agent/protocol/index.ts';
import {
  addHost,
  addTask,
  bootAgent,
  CHUNK,
  capture,
  failureOf,
  makeImage,
  octets,
  type TestImage,
  type TestServer,
  tarOf,
  tempFolder,
  testServer,
} from '../server-stub/support.ts';

const MIB = 1024 * 1024;

const mountTmpfs = async (t: ExecutionContext, folder: string, options: string): Promise<void> => {
  await mkdir(folder, { recursive: true });
  await run('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', folder]);
  t.teardown(() => run('umount', ['--lazy', folder]));
};

/** Capture until the server refuses a pack; @returns its refusal. */
const fillUp = async (server: TestServer, mac: string, content: TestImage) => {
  const task = await addTask(server, mac, 'capture', { image: 'lab' });
  const agent = await bootAgent(server, mac);
  await agent.post('next');
  const opened = await agent.post('uploads', { taskId: task.id, attempt: 1, image: 'lab', estimateBytes: 1 });
  const { uploadId } = opened.json() as { uploadId: string };
  for (let at = 0; at < content.chunks.length; at += 64) {
    const answer = await agent.call({
      method: 'POST',
      url: `/agent/v1/packs?upload=${uploadId}`,
      headers: octets,
      payload: await tarOf(content.chunks.slice(at, at + 64)),
    });
    if (answer.statusCode !== 200) return { task, agent, uploadId, answer };
  }
  throw new Error('the store was never full');
};

/** The version before still deploys, and a later capture works once there is space. */
const stillDeploys = async (t: ExecutionContext, server: TestServer, mac: string, content: TestImage) => {
  const verify = { method: 'POST' as const, url: '/api/images/lab/versions/1/verify' };
  t.like((await server.admin(verify)).json(), { damaged: [], missing: [], files: [] });
  t.is((await addTask(server, mac, 'deploy', { image: 'lab' })).params['version'], 1);
  const agent = await bootAgent(server, mac);
  const { task } = (await agent.post('next')).json();
  const ids = content.chunks.map(({ id }) => id);
  const pack = await agent.post('packs/fetch', { image: 'lab', version: 1, ids });
  let received = 0;
  for await (const _chunk of unpack(Readable.from([pack.rawPayload]), { maxFrame: frameLimit(CHUNK) }))
    received += 1;
  t.is(received, ids.length);
  await agent.post(`tasks/${task.id}/result`, failureOf(1, 'TASK_CANCELLED'));
};

test('a full disk refuses a capture with the reason, keeps what deploys, and gives the space back', async (t) => {
  const data = join(await tempFolder(t), 'data');
  await mountTmpfs(t, data, 'size=64m');
  const server = await testServer(t, { data, settings: { reserveBytes: 16 * MIB } });
  const { mac } = await addHost(server, 'pc1');
  const small = makeImage(20);
  await capture(server, mac, 'lab', small);
  const freeBefore = await freeBytes(data);

  const { task, agent, uploadId, answer } = await fillUp(server, mac, makeImage(1000));
  t.is(answer.statusCode, 507);
  t.is(answer.json().error.code, 'STORE_FULL');
  t.regex(answer.json().error.message, /are kept back, \d+ are missing/);
  t.true((await freeBytes(data)) >= 12 * MIB, 'the database can still write');
  const early = await agent.post('uploads', { taskId: task.id, attempt: 1, image: 'lab', estimateBytes: 1 });
  t.true([200, 507].includes(early.statusCode));

  await agent.post(`tasks/${task.id}/result`, failureOf(1, 'STORE_FULL'));
  t.deepEqual(await readdir(join(data, 'uploads')), []);
  t.false((await readdir(join(data, 'chunks'))).includes(uploadId));
  // SQLite keeps a write-ahead log of 4 MiB
  t.true((await freeBytes(data)) > freeBefore - 8 * MIB, 'the chunks of the failed capture are gone');
  await stillDeploys(t, server, mac, small);
  const next = await capture(server, mac, 'lab', makeImage(20));
  t.true(next.version > 1);
});

test('no space in the middle of a pack (ENOSPC) keeps nothing half-written', async (t) => {
  const data = join(await tempFolder(t), 'data');
  const chunks = join(data, 'chunks');
  // inodes run out, which no look at the free bytes foretells
  await mountTmpfs(t, chunks, 'size=256m,nr_inodes=300');
  const server = await testServer(t, { data });
  const { mac } = await addHost(server, 'pc1');
  const small = makeImage(20);
  await capture(server, mac, 'lab', small);

  const { task, agent, answer } = await fillUp(server, mac, makeImage(400));
  t.is(answer.statusCode, 507);
  t.is(answer.json().error.code, 'STORE_FULL');
  const temporary = join(chunks, 'tmp');
  t.deepEqual(await readdir(temporary).catch(() => []), []);
  await agent.post(`tasks/${task.id}/result`, failureOf(1, 'STORE_FULL'));
  await stillDeploys(t, server, mac, small);
});

const freeBytes = async (path: string): Promise<number> => {
  const { bavail, bsize } = await statfs(path);
  return bavail * bsize;
};
