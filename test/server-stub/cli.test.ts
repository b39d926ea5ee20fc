import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { startServer } from '../../server-stub/serve.ts';
import { tempFolder } from './support.ts';

const MAIN = new URL('../../server-stub/main.ts', import.meta.url).pathname;

test('fog-server works over HTTP with the token file, for people and with --json for scripts', async (t) => {
  const data = await tempFolder(t);
  const server = await startServer({ data, host: '127.0.0.1', port: 0 });
  t.teardown(server.close);
  const run = (...args: string[]) =>
    execa(process.execPath, [MAIN, ...args, '--server', server.url], {
      reject: false,
      env: { FOG_DATA: data, FOG_TOKEN: '', FOG_SERVER: '' },
    });
  const added = await run('host', 'add', 'pc1', '02-00-00-00-01-01', '--disk-serial', 'S1');
  t.is(added.stdout, 'added host pc1 (02:00:00:00:01:01)');
  t.is((await run('host', 'add', 'pc1', '02:00:00:00:01:02')).exitCode, 1);
  t.regex((await run('host', 'list')).stdout, /^NAME +MAC.*\npc1 +02:00:00:00:01:01/);
  t.regex((await run('host', 'show', '02:00:00:00:01:01')).stdout, /disk hint +\{"serial":"S1"\}/);

  const task = JSON.parse((await run('task', 'add', 'capture', 'pc1', '--image', 'lab', '--json')).stdout);
  t.deepEqual(task.params, { image: 'lab', disk: { serial: 'S1' }, level: 3, rescue: false, raw: false });
  const secret = `canary-${randomUUID()}`;
  const unlock = (input: string) =>
    execa(
      process.execPath,
      [
        MAIN,
        'task',
        'add',
        'capture',
        'pc1',
        '--image',
        'lab',
        '--unlock-stdin',
        '--json',
        '--server',
        server.url,
      ],
      { input, reject: false, env: { FOG_DATA: data, FOG_TOKEN: '', FOG_SERVER: '' } },
    );
  const locked = await unlock(`${secret}\n`);
  t.is(JSON.parse(locked.stdout).params.unlock, true);
  t.false(locked.stdout.includes(secret));
  await run('task', 'cancel', JSON.parse(locked.stdout).id);
  t.is((await unlock('\n')).exitCode, 1);
  const deploy = await run('task', 'add', 'deploy', 'pc1', '--image', 'lab@3');
  t.is(deploy.exitCode, 1);
  t.regex(deploy.stderr, /there is no image lab@3 \[IMAGE_NOT_FOUND\]/);
  t.regex((await run('task', 'list', '--open')).stdout, new RegExp(`${task.id}  pc1   capture  queued`));
  const waiting = run('task', 'wait', task.id);
  t.is((await run('task', 'cancel', task.id)).stdout, `task ${task.id} is cancelled`);
  t.is((await waiting).exitCode, 3);
  t.is((await run('task', 'log', task.id)).exitCode, 0);
  t.is((await run('task', 'cancel', task.id)).exitCode, 1);
  t.is((await run('image', 'list')).stdout, 'no images');
  t.is((await run('image', 'verify', 'lab')).exitCode, 1);
  t.is((await run('host', 'remove', 'pc1')).exitCode, 0);

  t.is((await run('task', 'explode')).exitCode, 2);
  t.is((await run('task', 'add', 'explode', 'pc1')).exitCode, 2);
  const token = (await readFile(join(data, 'admin-token'), 'utf8')).trim();
  t.is((await run('host', 'list', '--data', '/nonexistent', '--token', token)).exitCode, 0);
  const without = await run('host', 'list', '--data', '/nonexistent');
  t.regex(without.stderr, /no --token, no FOG_TOKEN, and .* cannot be read \[UNAUTHORIZED\]/);
  t.is((await run('host', 'list', '--token', 'wrong')).exitCode, 1);
});

test('serve says where it listens, ends on SIGTERM, and refuses a taken port', async (t) => {
  const data = await tempFolder(t);
  const other = await startServer({ data: await tempFolder(t), host: '127.0.0.1', port: 0 });
  t.teardown(other.close);
  const start = (port: number) =>
    execa(process.execPath, [MAIN, 'serve', '--data', data, '--host', '127.0.0.1', '--port', String(port)], {
      reject: false,
    });
  const taken = await start(other.port);
  t.is(taken.exitCode, 1);
  t.regex(taken.stderr, /Cannot listen on 127.0.0.1:\d+: .*\[CONFIG_INVALID\]/);
  const serving = start(0);
  t.teardown(() => serving.kill('SIGKILL'));
  const line = await new Promise<string>((resolve) =>
    serving.stdout.once('data', (text) => resolve(String(text))),
  );
  const url = /http:\/\/\S+/.exec(line)?.[0] ?? '';
  t.deepEqual(await (await fetch(`${url}/healthz`)).json(), { ok: true });
  serving.kill('SIGTERM');
  t.is((await serving).exitCode, 0);
});
