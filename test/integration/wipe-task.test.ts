import { open } from 'node:fs/promises';
import test, { type ExecutionContext } from 'ava';
import type { Disk } from '../../agent/disk/disk.ts';
import { ImagingError } from '../../agent/errors.ts';
import { createLog } from '../../agent/log.ts';
import { run } from '../../agent/process/run.ts';
import { taskParamsSchemas, type WipeReport, type WipeType } from '../../agent/protocol/index.ts';
import { type WipeContext, type WipeTask, wipe } from '../../agent/tasks/wipe.ts';
import { attachLoop, diskOf, hashOf, type LoopDevice, MIB } from './loop-device.ts';

/** The handler as the runner calls it, on these disks; what it told is kept. */
const runTask = async (
  type: WipeType,
  params: object,
  disks: Disk[],
  {
    stop = new Promise<void>(() => undefined),
    attempt = 1,
    cancelIn = '',
  }: { stop?: Promise<void>; attempt?: number; cancelIn?: string } = {},
) => {
  const told = {
    steps: [] as string[],
    proofs: [] as string[],
    warnings: [] as string[],
    says: [] as string[],
    report: undefined as WipeReport | undefined,
  };
  const cancel = new AbortController();
  const context: WipeContext = {
    log: createLog({}),
    signal: cancel.signal,
    step: (name) => {
      told.steps.push(name);
      const add = (): void => {
        if (name === cancelIn) cancel.abort(new ImagingError('TASK_CANCELLED', 'Cannot go on: cancelled'));
      };
      return { add, say: (text) => told.says.push(text), watch: () => undefined };
    },
    prove: (what) => told.proofs.push(what),
    warn: (text) => told.warnings.push(text),
    showPlan: () => undefined,
    showWipe: (report) => {
      told.report = report;
    },
    stopKeyPressed: () => stop,
  };
  const task = {
    type,
    params: taskParamsSchemas[type].parse({ countdownSeconds: 0, ...params }),
    attempt,
  } as WipeTask;
  const list = async (): Promise<Disk[]> => disks;
  const error = await wipe(task, context, { list }).then(
    () => undefined,
    (thrown: unknown) => (thrown instanceof ImagingError ? thrown : Promise.reject(thrown)),
  );
  return { ...told, error };
};

/** A loop device with something on it, listed as a disk of this serial number. */
const disk = async (
  t: ExecutionContext,
  serial: string,
  more: Partial<Disk> = {},
): Promise<{ loop: LoopDevice; disk: Disk }> => {
  const loop = await attachLoop(t, 100 * MIB);
  await using handle = await open(loop.path, 'r+');
  await handle.write(Buffer.from('something'), 0, 9, 50 * MIB);
  await handle.sync();
  await run('blockdev', ['--flushbufs', loop.path]);
  return {
    loop,
    disk: { ...(await diskOf(loop.path)), ...more, ...(more.serial === undefined ? {} : { serial }) },
  };
};

test('nothing is written when it is stopped in the countdown', async (t) => {
  const one = await disk(t, 'A');
  const before = await hashOf(one.loop.file);
  const { error, steps, says } = await runTask(
    'wipe-normal',
    { allInternal: true, countdownSeconds: 30 },
    [one.disk],
    {
      stop: Promise.resolve(),
    },
  );
  t.is(error?.code, 'TASK_CANCELLED');
  t.deepEqual(steps, ['plan', 'countdown']);
  t.regex(says[0] ?? '', /30 s until .* is erased; q stops it/);
  t.is(await hashOf(one.loop.file), before);
});

test('a dry run says what would be erased and writes nothing', async (t) => {
  const one = await disk(t, 'A');
  const usb = await disk(t, 'B', { onlyWhenNamed: 'USB' });
  const before = await hashOf(one.loop.file);
  const { error, report, proofs } = await runTask('wipe-full', { allInternal: true, dryRun: true }, [
    one.disk,
    usb.disk,
  ]);
  t.is(error, undefined);
  t.is(report, undefined);
  t.true(proofs.includes('the disks were seen'));
  t.is(await hashOf(one.loop.file), before);
});

test('every disk that was seen is in the report; the task proves each that it erased', async (t) => {
  const one = await disk(t, 'A');
  const usb = await disk(t, 'B', { onlyWhenNamed: 'USB' });
  const before = await hashOf(usb.loop.file);
  const { error, report, proofs, warnings } = await runTask(
    'wipe-normal',
    { allInternal: true },
    [one.disk, usb.disk],
    {
      attempt: 2,
    },
  );
  t.is(error, undefined);
  t.deepEqual(
    report?.disks.map(({ status }) => status),
    ['cleared-verified', 'skipped'],
  );
  t.is(proofs.length, 1);
  t.regex(warnings.join(), /an earlier attempt was cut off/);
  t.is(report?.tools['node'], process.versions.node);
  t.is(await hashOf(usb.loop.file), before);
});

test('purge of a disk that has none: failed with the reason, and nothing written', async (t) => {
  const one = await disk(t, 'A');
  const before = await hashOf(one.loop.file);
  const { error, report, steps } = await runTask('wipe-fast', { allInternal: true, purge: true }, [one.disk]);
  t.is(error?.code, 'PURGE_IMPOSSIBLE');
  t.regex(error?.message ?? '', /has no erasure of its own/);
  t.is(report?.disks[0]?.status, 'failed');
  t.deepEqual(steps, ['plan', 'purge']);
  t.is(await hashOf(one.loop.file), before);
});

test('purge where the task says that overwriting will do: all of it is overwritten, in a fast wipe too, and that is said', async (t) => {
  const one = await disk(t, 'A');
  const { error, report, warnings } = await runTask(
    'wipe-fast',
    { allInternal: true, purge: true, orOverwrite: true },
    [one.disk],
  );
  t.is(error, undefined);
  t.is(report?.disks[0]?.status, 'cleared-verified');
  t.is(report?.disks[0]?.passes[0]?.bytes, 100 * MIB);
  t.is(report?.disks[0]?.purge?.method, null);
  t.regex(warnings.join(), /the task allows to overwrite it instead/);
});

test('a cancel in the middle: cancelled, and the report says that the disk is interrupted', async (t) => {
  const one = await disk(t, 'A');
  const usb = await disk(t, 'B', { onlyWhenNamed: 'USB' });
  const { error, report, proofs } = await runTask('wipe-full', { allInternal: true }, [one.disk, usb.disk], {
    cancelIn: 'overwrite',
  });
  t.is(error?.code, 'TASK_CANCELLED');
  t.deepEqual(
    report?.disks.map(({ status, verification }) => [status, verification]),
    [
      ['interrupted', null],
      ['skipped', null],
    ],
  );
  t.deepEqual(proofs, []);
});

test('one disk that cannot be claimed fails the task, not the others', async (t) => {
  const [gone, fine] = [await disk(t, 'A'), await disk(t, 'B')];
  const { error, report } = await runTask('wipe-normal', { allInternal: true }, [
    { ...gone.disk, size: 1 },
    fine.disk,
  ]);
  t.is(error?.code, 'DISK_CHANGED');
  t.regex(error?.message ?? '', /1 of 2 disks failed/);
  t.deepEqual(
    report?.disks.map(({ status }) => status),
    ['failed', 'cleared-verified'],
  );
});
