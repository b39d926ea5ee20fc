import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { isErrno } from '../../agent/errors.ts';
import { root } from '../../scripts/lib/root.ts';
import { type Child, startChild } from '../../scripts/lib/vm/child.ts';
import { startMachine } from '../../scripts/lib/vm/machine.ts';
import { diskToken, makeBiosDisk } from './netboot-disks.ts';

test('scripts/vm ends with 0 when the guest restarts by itself, and shows its console', async (t) => {
  const folder = temporary(t);
  makeBiosDisk(join(folder, 'disk.img'));
  const vm = startVm(t, ['--boot', 'disk', '--disk', `${join(folder, 'disk.img')},ro,serial=A1`]);
  t.deepEqual(await vm.ended, { code: 0, signal: null });
  t.true(vm.output().includes(diskToken), vm.output());
});

test('scripts/vm ends with 124 at its time limit, with the screen as it was', async (t) => {
  const folder = temporary(t);
  const [disk, screenshot] = [join(folder, 'blank.img'), join(folder, 'screen.png')];
  writeFileSync(disk, Buffer.alloc(1024 * 1024));
  const args = ['--boot', 'disk', '--disk', `${disk},bus=sata`, '--timeout', '3', '--screenshot', screenshot];
  const vm = startVm(t, args);
  t.is((await vm.ended).code, 124, vm.output());
  t.deepEqual([...readFileSync(screenshot).subarray(1, 4)], [...Buffer.from('PNG')]);
});

for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
  test(`no QEMU is left behind when scripts/vm is ended by ${signal}`, async (t) => {
    const folder = temporary(t);
    const [disk, socket] = [join(folder, 'blank.img'), join(folder, 'qmp')];
    writeFileSync(disk, Buffer.alloc(1024 * 1024));
    const vm = startVm(t, ['--boot', 'disk', '--disk', disk, '--qmp', socket]);
    while (vm.isRunning() && !existsSync(socket)) await pause();
    const qemu = childrenOf(vm.pid);
    t.is(qemu.length, 1, vm.output());
    process.kill(vm.pid, signal);
    await vm.ended;
    while (qemu.some(isRunning)) await pause();
    t.pass();
  });
}

test('scripts/vm says what is wrong with its command line, and ends with 2', async (t) => {
  const vm = startVm(t, ['--server', 'http://127.0.0.1:1/$x', '--disk', 'x,bus=floppy']);
  t.is((await vm.ended).code, 2);
  t.regex(vm.output(), /"floppy" is none of virtio, sata, nvme, usb/);
});

test("a machine's end tells what it did to each disk, on every bus", async (t) => {
  const folder = temporary(t);
  const disks = (['virtio', 'nvme', 'usb'] as const).map((bus) => ({
    bus,
    file: join(folder, `${bus}.img`),
  }));
  for (const { file } of disks) makeBiosDisk(file);
  const machine = await startMachine({
    boot: 'disk',
    disks: disks.map((disk) => ({ ...disk, readOnly: true })),
  });
  const exit = await machine.waitForExit();
  t.is(exit.reason, 'guest-reset');
  t.is(exit.disks.length, 3);
  t.true((exit.disks[0]?.reads ?? 0) > 0);
  t.true(exit.disks.every(({ writes }) => writes === 0));
  t.true(machine.console().includes(diskToken), 'the console can be read after the end');
  t.false(existsSync(machine.folder));
});

test('a wait for words that never come ends when the machine does, or at its limit', async (t) => {
  const folder = temporary(t);
  const file = join(folder, 'disk.img');
  makeBiosDisk(file);
  const machine = await startMachine({ boot: 'disk', disks: [{ file, readOnly: true }] });
  await t.throwsAsync(machine.waitForConsole(/no such words/), { code: 'TOOL_FAILED' });
  writeFileSync(file, Buffer.alloc(1024 * 1024));
  const idle = await startMachine({ boot: 'disk', disks: [{ file, readOnly: true }] });
  t.teardown(idle.kill);
  await t.throwsAsync(idle.waitForConsole(/no such words/, { timeoutMs: 300 }), { code: 'TOOL_TIMEOUT' });
  await t.throwsAsync(idle.waitForExit({ timeoutMs: 300 }), { code: 'TOOL_TIMEOUT' });
  await idle.kill();
  t.deepEqual(await idle.waitForExit(), { reason: 'killed', disks: [] });
});

const startVm = (t: ExecutionContext, args: readonly string[]): Child => {
  const vm = startChild(process.execPath, [join(root, 'scripts/vm.ts'), ...args]);
  t.teardown(vm.kill);
  return vm;
};

const temporary = (t: ExecutionContext): string => {
  const folder = mkdtempSync(join(tmpdir(), 'fog-vm-test-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
};

const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);

const isRunning = (pid: number): boolean => {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ESRCH')) return false;
    throw error;
  }
};

const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 50));
