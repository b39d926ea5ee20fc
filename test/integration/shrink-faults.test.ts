import { access, chmod, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import { run } from '../../agent/process/run.ts';
import type { ImageAnswer, ShrinkAnswer } from '../../server-stub/api.ts';
import { createApiClient } from '../../server-stub/cli/api-client.ts';
import { openState } from '../../server-stub/state.ts';
import { testServer } from '../server-stub/support.ts';
import { makeGroup } from './shrink-group.ts';
import {
  askShrink,
  MIB,
  makeExt4,
  makeTree,
  memoryFolder,
  type Part,
  shrink,
  storeImage,
} from './shrink-helpers.ts';

const MAIN = new URL('../../server-stub/main.ts', import.meta.url).pathname;

const makePart = async (folder: string): Promise<Part> =>
  makeExt4(folder, 400 * MIB, await makeTree(join(folder, 'tree'), 30 * MIB));

/** A tool that does something first: then the moment at which it happens is no matter of luck. */
const intercept = async (folder: string, tool: string, script: string): Promise<string> => {
  const place = join(folder, 'bin');
  await mkdir(place, { recursive: true });
  const real = (await run('which', [tool])).stdout.trim();
  await writeFile(join(place, tool), `#!/bin/sh\n${script}\nexec ${real} "$@"\n`);
  await chmod(join(place, tool), 0o755);
  return `${place}:${process.env['PATH']}`;
};

const leftOf = async (data: string) => ({
  versions: await readdir(join(data, 'images/lab')),
  uploads: await readdir(join(data, 'uploads')),
  scratch: await readdir(join(data, 'scratch')).catch(() => []),
});
const nothingMade = { versions: ['1'], uploads: [], scratch: [] };

// PATH is the process's: one at a time
test.serial('no room: refused before anything is written, with the bytes needed and available', async (t) => {
  const folder = await memoryFolder(t);
  const data = join(folder, 'data');
  await mkdir(data);
  await run('mount', ['-t', 'tmpfs', '-o', 'size=160m', 'tmpfs', data]);
  t.teardown(() => run('umount', ['--lazy', data]));
  const server = await testServer(t, { data, settings: { reserveBytes: 16 * MIB } });
  await storeImage(server.app.fog, 'lab', [await makePart(folder)]);
  const { error } = await shrink(t, server, 'lab', 1, { to: 200_000_000 });
  t.is(error?.code, 'SCRATCH_FULL');
  const { neededBytes, availableBytes } = error?.details ?? {};
  t.true(Number(availableBytes) < Number(neededBytes) && Number(availableBytes) > 0);
  t.true(error?.message.includes(String(neededBytes)) && error.message.includes(String(availableBytes)));
  t.deepEqual(await leftOf(data), nothingMade);
});

test.serial('space that runs out in the middle ends it, and everything is given back', async (t) => {
  const folder = await memoryFolder(t);
  const data = join(folder, 'data');
  await mkdir(data);
  await run('mount', ['-t', 'tmpfs', '-o', 'size=500m', 'tmpfs', data]);
  t.teardown(() => run('umount', ['--lazy', data]));
  const server = await testServer(t, { data, settings: { reserveBytes: 16 * MIB } });
  await storeImage(server.app.fog, 'lab', [await makePart(folder)]);
  const before = await server.app.fog.db.selectFrom('chunks').select('id').execute();

  const filler = join(data, 'filler');
  const path = process.env['PATH'];
  process.env['PATH'] = await intercept(folder, 'resize2fs', `cat /dev/zero > ${filler} 2> /dev/null`);
  t.teardown(() => {
    process.env['PATH'] = path;
  });
  const { error } = await shrink(t, server, 'lab', 1, { to: 200_000_000 });
  t.is(error?.code, 'SCRATCH_FULL');
  t.deepEqual(await leftOf(data), nothingMade);
  const after = await server.app.fog.db.selectFrom('chunks').select('id').execute();
  t.is(after.length, before.length);
  await rm(filler);
  process.env['PATH'] = path;
  t.is((await shrink(t, server, 'lab', 1, { to: 200_000_000 })).error, null, 'with room it works');
  t.true((await server.app.fog.db.selectFrom('chunks').select('id').execute()).length > before.length);
});

test.serial('a filesystem that its own check finds damaged is not made smaller', async (t) => {
  const folder = await memoryFolder(t);
  const server = await testServer(t, { data: join(folder, 'data') });
  await storeImage(server.app.fog, 'lab', [await makePart(folder)]);
  const path = process.env['PATH'];
  // the root directory's blocks are gone while resize2fs is about to run: what it leaves is no filesystem
  const damage = 'case "$1" in /*) debugfs -w -R "clri <2>" "$1" > /dev/null 2>&1;; esac';
  process.env['PATH'] = await intercept(folder, 'resize2fs', damage);
  t.teardown(() => {
    process.env['PATH'] = path;
  });
  const { error } = await shrink(t, server, 'lab', 1, { to: 200_000_000 });
  t.true(['FILESYSTEM_CHECK_FAILED', 'TOOL_FAILED'].includes(error?.code ?? ''), error?.message);
  t.deepEqual(await leftOf(server.data), nothingMade);
});

const kinds = {
  ext4: { make: makePart, to: 200_000_000, scratch: /^p1\.img$/ },
  LVM: {
    make: async (folder: string, t: ExecutionContext) =>
      (await makeGroup(t, folder, await makeTree(join(folder, 'tree'), 30 * MIB))).part,
    to: 300_000_000,
    // the old content is gone by then, the new one not complete
    scratch: /^p1\.img\.(new|[\w-]{38})$/,
  },
};

for (const [kind, { make, to, scratch }] of Object.entries(kinds)) {
  test.serial(
    `a server that is killed in the middle leaves nothing half, and makes it when asked again: ${kind}`,
    async (t) => {
      const folder = await memoryFolder(t);
      const data = join(folder, 'data');
      const state = await openState({ data });
      await storeImage(state, 'lab', [await make(folder, t)]);
      await state.close();

      const reached = join(folder, 'reached');
      const slow = await intercept(
        folder,
        'resize2fs',
        `case "$1" in /*) echo $$ > ${reached}; exec sleep 300;; esac`,
      );
      const first = await startServer(t, data, slow);
      const asked = await first.api.post<ShrinkAnswer>('/api/images/lab/versions/1/shrink', {
        to,
      });
      t.like(await first.api.get<ShrinkAnswer>(`/api/shrinks/${asked.id}`), { result: null, error: null });
      while (!(await exists(reached))) await sleep(20);
      for (const name of await readdir(join(data, 'scratch'))) t.regex(name, scratch);
      await first.kill();
      process.kill(Number(await readFile(reached, 'utf8')), 'SIGKILL');

      const second = await startServer(t, data, process.env['PATH'] ?? '');
      t.deepEqual(await leftOf(data), nothingMade);
      const { versions } = await second.api.get<ImageAnswer>('/api/images/lab');
      t.is(versions.length, 1);
      let job = await second.api.post<ShrinkAnswer>('/api/images/lab/versions/1/shrink', { to });
      while (job.state === 'queued' || job.state === 'running') {
        await sleep(50);
        job = await second.api.get<ShrinkAnswer>(`/api/shrinks/${job.id}`);
      }
      t.is(job.error, null);
      // the number that was reserved is not used for another content
      t.is(job.result, 3);
      await second.kill();
    },
  );
}

test.serial('a server that is stopped in the middle stops the work first', async (t) => {
  const folder = await memoryFolder(t);
  const server = await testServer(t, { data: join(folder, 'data') });
  await storeImage(server.app.fog, 'lab', [await makePart(folder)]);
  const reached = join(folder, 'reached');
  const path = process.env['PATH'];
  process.env['PATH'] = await intercept(folder, 'e2fsck', `echo > ${reached}; exec sleep 300`);
  t.teardown(() => {
    process.env['PATH'] = path;
  });
  t.is((await askShrink(server, 'lab', 1, { to: 200_000_000 })).statusCode, 202);
  while (!(await exists(reached))) await sleep(20);
  await server.close();
  t.deepEqual(await leftOf(server.data), nothingMade);
});

const startServer = async (t: { teardown(work: () => void): void }, data: string, path: string) => {
  const args = ['serve', '--data', data, '--host', '127.0.0.1', '--port', '0', '--log-level', 'error'];
  const child = execa(process.execPath, [MAIN, ...args], { reject: false, env: { PATH: path } });
  t.teardown(() => void child.kill('SIGKILL'));
  const said = await new Promise<string>((resolve) =>
    child.stdout.once('data', (text) => resolve(String(text))),
  );
  const server = /(http:\/\/\S+)/.exec(said)?.[1] ?? '';
  return {
    api: createApiClient({ server, data }),
    kill: async () => {
      child.kill('SIGKILL');
      await child;
    },
  };
};

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );
