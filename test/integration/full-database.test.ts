import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { isErrno } from '../../agent/errors.ts';
import { run } from '../../agent/process/run.ts';
import { verifyCertificate } from '../../server-stub/certificate/verify.ts';
import {
  addHost,
  addTask,
  bootAgent,
  resultOf,
  showTask,
  tempFolder,
  testServer,
  wipedDisk,
  wipeOf,
} from '../server-stub/support.ts';

const MIB = 1024 * 1024;

/** A data folder on a filesystem of its own, which can be filled to the last byte and emptied again. */
const smallDisk = async (t: ExecutionContext) => {
  const folder = await tempFolder(t);
  await run('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', folder]);
  t.teardown(async () => {
    await run('umount', ['--lazy', folder]);
  });
  const ballast = join(folder, 'ballast');
  return {
    folder,
    fill: async (): Promise<void> => {
      for (let size = 8 * MIB; size >= 4096; ) {
        const rest = Buffer.alloc(size);
        try {
          await writeFile(ballast, rest, { flag: 'a' });
        } catch (error) {
          if (!isErrno(error, 'ENOSPC')) throw error;
          size /= 2;
        }
      }
    },
    empty: () => rm(ballast),
  };
};

test('no space for the certificate: neither it nor the task’s end is kept, the machine is told to try again, and then both are', async (t) => {
  const disk = await smallDisk(t);
  const server = await testServer(t, { data: disk.folder });
  const host = await addHost(server, 'lab');
  const task = await addTask(server, host.id, 'wipe-normal', { allInternal: true });
  const agent = await bootAgent(server, host.mac);
  await agent.post('next');
  // a report of many disks: more than the pages that the database has to spare
  const many = Array.from({ length: 300 }, (_, at) =>
    wipedDisk({ facts: { ...wipedDisk().facts, name: `sd${at}`, serial: `S${at}` } }),
  );
  const result = resultOf(1, wipeOf(...many));
  const finish = () => agent.post(`tasks/${task.id}/result`, result);
  const certificate = () => server.admin({ url: `/api/tasks/${task.id}/certificate` });

  await disk.fill();
  for (let tries = 0; tries < 3; tries++) {
    const refused = await finish();
    t.is(refused.statusCode, 503, refused.body);
    t.like(refused.json().error, { code: 'SERVER_ERROR', retryable: true });
    t.regex(refused.json().error.message, /no space left/);
    t.is((await showTask(server, task.id)).state, 'running');
    t.is((await certificate()).statusCode, 404);
  }
  t.is(
    (await agent.post(`tasks/${task.id}/heartbeat`, { attempt: 1 })).statusCode,
    200,
    'the lease lives on',
  );

  await disk.empty();
  t.is((await finish()).statusCode, 200);
  t.is((await showTask(server, task.id)).state, 'succeeded');
  const body = verifyCertificate((await certificate()).body, server.app.fog.key.publicKey);
  t.is(body.verdicts.length, 300);
});
