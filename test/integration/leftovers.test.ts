import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline/promises';
import test, { type ExecutionContext } from 'ava';
import { claimDisk } from '../../agent/disk/claim.ts';
import { findAbandonedFolders, findLeftovers } from '../../agent/disk/leftovers.ts';
import { setUpLoop } from '../../agent/disk/loop-nodes.ts';
import { kernelNameOf, readAttribute, sysfsOf } from '../../agent/disk/sysfs.ts';
import { takeDownLeftovers } from '../../agent/disk/take-down.ts';
import { createLog } from '../../agent/log.ts';
import { endOrphans } from '../../agent/process/orphans.ts';
import { run } from '../../agent/process/run.ts';
import { attachLoop, diskOf, MIB } from './loop-device.ts';

const program = join(import.meta.dirname, 'leftovers-program.ts');

/** An agent in the middle of its work. Its folder of temporary things is the test's own. */
const startAgent = async (t: ExecutionContext, device: string) => {
  const child = spawn(process.execPath, [program, device], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  const ended = once(child, 'exit');
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL');
    await ended;
  };
  return { node: line, kill };
};

const lines: string[] = [];
const log = createLog({ toConsole: (line) => lines.push(line) });

const folder = await mkdtemp(join(tmpdir(), 'leftovers-'));
process.env['TMPDIR'] = folder;
test.after.always(async () => await rm(folder, { recursive: true, force: true }));

test.serial('what a killed agent left is taken down, and its disk can be claimed', async (t) => {
  const { path } = await attachLoop(t, 32 * MIB);
  await run('mkfs.ext4', ['-q', path]);
  const agent = await startAgent(t, path);
  // another's loop device on the same disk, and another's folder
  const other = (await run('losetup', ['--find', '--show', '--read-only', path])).stdout.trim();
  // a claim that is released has taken every loop device off its disk
  t.teardown(async () => void (await run('losetup', ['--detach', other], { okExitCodes: [0, 1] })));
  const foreign = await mkdtemp(join(tmpdir(), 'mount-'));

  t.deepEqual(await findLeftovers(), []);
  await takeDownLeftovers(log);
  t.deepEqual(lines, [], 'an agent that runs keeps what it works with');

  await agent.kill();
  const [mount] = await findLeftovers();
  t.regex(mount?.name ?? '', /\/mount-\d+\.\d+-/);
  t.deepEqual(await findLeftovers(), [
    { kind: 'mount', name: mount?.name ?? '' },
    { kind: 'loop', name: agent.node },
  ]);
  t.is((await findAbandonedFolders()).length, 2);
  t.is(await readAttribute(sysfsOf(kernelNameOf(path)), 'ro'), '0');

  await takeDownLeftovers(log);
  t.deepEqual(await findLeftovers(), []);
  t.deepEqual(await findAbandonedFolders(), []);
  t.is(await readAttribute(sysfsOf(kernelNameOf(agent.node)), 'loop/backing_file'), null);
  t.is(await readAttribute(sysfsOf(kernelNameOf(path)), 'ro'), '1');
  const said = lines.join('\n');
  for (const what of [
    /left sleep \(\d+\): ended/,
    /left mount /,
    /left loop /,
    /claimed .*: read-only again/,
  ]) {
    t.regex(said, what);
  }
  t.is(await readAttribute(sysfsOf(kernelNameOf(other)), 'loop/backing_file'), path, 'not ours: stays');
  t.true((await readdir(tmpdir())).includes(foreign.slice(tmpdir().length + 1)));
  const claim = await claimDisk(await diskOf(path));
  await claim.release();
});

test.serial('what cannot be taken down is in the log, and named where a claim is refused', async (t) => {
  const { path } = await attachLoop(t, 32 * MIB);
  await run('mkfs.ext4', ['-q', path]);
  const agent = await startAgent(t, path);
  await agent.kill();
  const [mount] = await findLeftovers();
  // a shell of the technician's stands in the mounted folder
  const shell = spawn('sleep', ['300'], { cwd: mount?.name ?? '', stdio: 'ignore' });
  const user = await mkdtemp(join(tmpdir(), 'user-'));
  await run('mount', ['-o', 'ro,noload', path, user]);
  t.teardown(async () => {
    await run('umount', [user], { okExitCodes: [0, 32] });
    shell.kill('SIGKILL');
  });
  lines.length = 0;
  await takeDownLeftovers(log);
  t.regex(lines.join('\n'), /left mount \/.*which stays/);
  await t.throwsAsync(claimDisk(await diskOf(path)), {
    code: 'DISK_IN_USE',
    message: /mounted on .*an agent that was killed left \/.*\/mount-/,
  });
  await run('umount', [user]);
  shell.kill('SIGKILL');
  await once(shell, 'exit');
  await takeDownLeftovers(log);
  t.deepEqual(await findLeftovers(), []);
});

test.serial('a number that has become another’s device is not ours', async (t) => {
  const { path, file } = await attachLoop(t, 16 * MIB);
  await run('mkfs.ext4', ['-q', path]);
  const agent = await startAgent(t, path);
  await agent.kill();
  const [mount] = await findLeftovers();
  t.deepEqual(
    (await endOrphans()).map(({ name }) => name),
    ['sleep'],
  );
  await run('umount', [mount?.name ?? '']);
  await run('losetup', ['--detach', agent.node]);
  await run('losetup', [agent.node, file]);
  t.teardown(async () => void (await run('losetup', ['--detach', agent.node])));
  t.deepEqual(await findLeftovers(), []);
  const own = await setUpLoop(file, { writable: false });
  t.deepEqual(await findLeftovers(), [], 'this process runs');
  await run('losetup', ['--detach', own]);
});
