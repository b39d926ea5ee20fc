import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import type { Disk } from '../../agent/disk/disk.ts';
import { lockDisk } from '../../agent/disk/lock.ts';
import { ImagingError } from '../../agent/errors.ts';
import { createLog } from '../../agent/log.ts';
import { run } from '../../agent/process/run.ts';
import { type SurfaceReport, surfaceTestParamsSchema } from '../../agent/protocol/index.ts';
import { type SurfaceContext, surfaceTest } from '../../agent/tasks/surface-test.ts';
import { attachLoop, diskOf, hashOf, MIB } from './loop-device.ts';
import { sickFile } from './sick-file.ts';

/** The handler as the runner calls it, on these disks; what it told is kept. */
const runTask = async (
  disks: Disk[],
  params: object = {},
  options: { signal?: AbortSignal; attempt?: number } = {},
) => {
  const told = {
    proofs: [] as string[],
    warnings: [] as string[],
    lines: [] as string[],
    says: [] as string[],
    done: 0,
    total: 0,
    report: undefined as SurfaceReport | undefined,
  };
  const context: SurfaceContext = {
    log: createLog({ toConsole: (line) => told.lines.push(line) }),
    signal: options.signal ?? new AbortController().signal,
    step: (_name, { total } = {}) => {
      told.total = total ?? 0;
      return {
        add: (bytes) => {
          told.done += bytes;
        },
        say: (text) => told.says.push(text),
        watch: () => undefined,
      };
    },
    prove: (what, proof) => told.proofs.push(`${what}: ${proof}`),
    warn: (text) => told.warnings.push(text),
    showPlan: () => undefined,
    showSurface: (report) => {
      told.report = report;
    },
  };
  const task = { params: surfaceTestParamsSchema.parse(params), attempt: options.attempt ?? 1 };
  const error = await surfaceTest(task, context, { list: async () => disks }).then(
    () => undefined,
    (thrown: unknown) => (thrown instanceof ImagingError ? thrown : Promise.reject(thrown)),
  );
  return { ...told, error };
};

/** A loop device with content everywhere, as the agent lists it: without a serial number, named by its size. */
const disk = async (t: ExecutionContext, bytes: number, sectorSize = 512) => {
  const loop = await attachLoop(t, bytes, { sectorSize });
  await using handle = await open(loop.path, 'r+');
  const line = Buffer.alloc(4096, 'content ');
  for (let at = 0; at + 4096 <= bytes; at += 1024 * 1024) await handle.write(line, 0, 4096, at);
  await handle.sync();
  await run('blockdev', ['--flushbufs', loop.path]);
  return { loop, disk: await diskOf(loop.path) };
};

/** Bytes written to the disk since now, by the kernel's count. */
const writtenTo = ({ name }: Disk): (() => number) => {
  const read = (): number =>
    Number(readFileSync(`/sys/class/block/${name}/stat`, 'utf8').trim().split(/\s+/)[6]) * 512;
  const from = read();
  return () => read() - from;
};

/** A file that fails, as a disk: what badblocks and the reader behind it see is the same. */
const sickDisk = async (
  t: ExecutionContext,
  bytes: number,
  sectors: readonly number[] | 'all',
): Promise<Disk> => {
  const { file } = await sickFile(t, bytes, sectors, 'read');
  return {
    ...{ name: 'sick', path: file, serial: 'SICK', size: bytes, sequence: null, partitions: [], mounts: [] },
    ...{ logicalSectorSize: 512, physicalSectorSize: 512, rotational: true, removable: false },
    readOnly: false,
  };
};

test.serial(
  'two healthy disks at once, one of an odd size: read to the last byte, nothing written, a map of all of it',
  async (t) => {
    const one = await disk(t, 48 * MIB);
    const odd = await disk(t, 20 * MIB + 3 * 512);
    const before = [await hashOf(one.loop.file), await hashOf(odd.loop.file)];
    const { error, report, proofs, done, total, warnings } = await runTask([one.disk, odd.disk]);
    t.is(error, undefined);
    t.deepEqual([done, total], [68 * MIB + 3 * 512, 68 * MIB + 3 * 512]);
    for (const [at, size] of [48 * MIB, 20 * MIB + 3 * 512].entries()) {
      const found = report?.disks[at];
      t.like(found, { status: 'tested', bytes: size, blockSize: 4096, bad: { sectors: 0, ranges: [] } });
      t.not(found?.verdict, 'bad', found?.reasons.join());
      t.true((found?.kernel?.read ?? 0) >= size - (size % 4096), 'badblocks counts in whole blocks');
      t.is(found?.kernel?.written, 0);
      const { latency } = found ?? {};
      t.true(latency && latency.cells.length <= 256 && latency.cells.every(({ reads }) => reads > 0));
      t.true((latency?.meanMs ?? 0) > 0 && (latency?.maxMs ?? 0) >= (latency?.meanMs ?? 0));
      t.regex(found?.reasons.join() ?? '', /nothing known from SMART/);
    }
    t.is(proofs.length, 2);
    t.regex(proofs[0] ?? '', /badblocks read 50331648 of 50331648 bytes.*the kernel counts \d+ bytes read/);
    t.deepEqual(warnings, []);
    t.deepEqual([await hashOf(one.loop.file), await hashOf(odd.loop.file)], before);
  },
);

test.serial(
  'bad sectors are found in blocks by badblocks, and looked at sector by sector, while the test runs and at its end',
  async (t) => {
    const sick = await sickDisk(t, 64 * MIB, [1001, 1002, 50_000, 131_071]);
    const { error, report, lines, says } = await runTask([sick]);
    t.is(error, undefined, 'the test did its job');
    const found = report?.disks[0];
    t.is(found?.verdict, 'bad');
    t.is(found?.bytes, 64 * MIB);
    t.true((found?.bad.ranges.length ?? 0) >= 3);
    t.deepEqual(
      found?.bad.ranges.map(({ lba, start }) => lba * 512 === start),
      found?.bad.ranges.map(() => true),
    );
    const isBad = (sector: number): boolean =>
      found?.bad.ranges.some(({ lba, sectors }) => lba <= sector && sector < lba + sectors) ?? false;
    t.true([1001, 1002, 50_000, 131_071].every(isBad));
    t.regex(lines.join('\n'), /bad block at LBA 1000 /);
    t.true(says.some((text) => /bad sectors in \d+ ranges, the last at LBA/.test(text)));
  },
);

test.serial(
  'a disk that returns nothing is given up behind 100,000 blocks: bad, and the report says how far it got',
  async (t) => {
    const sick = await sickDisk(t, 500 * MIB, 'all');
    const { error, report, lines, warnings } = await runTask([sick]);
    t.is(error, undefined);
    const found = report?.disks[0];
    t.like(found, { status: 'tested', verdict: 'bad' });
    t.true((found?.bytes ?? 0) >= 100_000 * 4096 && (found?.bytes ?? 0) < 500 * MIB);
    t.true((found?.bad.sectors ?? 0) >= 800_000);
    t.is(lines.filter((line) => line.includes('bad block at')).length, 1, 'one range is one line');
    t.regex(warnings.join(), /the test stopped there/);
  },
);

test.serial(
  'read-write: every block is written and put back, with sectors of 512 and 4096 bytes',
  async (t) => {
    for (const sectorSize of [512, 4096]) {
      const one = await disk(t, 24 * MIB, sectorSize);
      const before = await hashOf(one.loop.file);
      const { error, report } = await runTask([one.disk], { disk: { size: 24 * MIB }, mode: 'read-write' });
      t.is(error, undefined);
      const found = report?.disks[0];
      t.like(found, { status: 'tested', bytes: 24 * MIB });
      t.not(found?.verdict, 'bad', found?.reasons.join());
      t.true((found?.kernel?.written ?? 0) >= 2 * 24 * MIB, 'the pattern, then the content');
      t.is(await hashOf(one.loop.file), before);
    }
  },
);

test.serial('read-write: a disk that is in use is refused, and nothing is written to it', async (t) => {
  const one = await disk(t, 16 * MIB);
  const before = await hashOf(one.loop.file);
  const lock = await lockDisk(one.loop.path);
  const { error, report } = await runTask([one.disk], { allInternal: true, mode: 'read-write' });
  await lock.unlock();
  t.is(error?.code, 'DISK_IN_USE');
  t.like(report?.disks[0], { status: 'failed', verdict: null, bytes: 0 });
  t.is(await hashOf(one.loop.file), before);
});

test.serial(
  'a sparse disk of 20 TB: badblocks can count it; a cancel ends it within seconds, its tool with it',
  async (t) => {
    // a filesystem that takes such a file: ext4 ends at 16 TiB
    const folder = await mkdtemp('/dev/shm/huge-');
    await run('truncate', ['-s', '20000000000000', `${folder}/disk`]);
    const path = (await run('losetup', ['--find', '--show', `${folder}/disk`])).stdout.trim();
    t.teardown(async () => {
      await run('losetup', ['--detach', path]);
      await rm(folder, { recursive: true, force: true });
    });
    const ending = new AbortController();
    const began = runTask([await diskOf(path)], {}, { signal: ending.signal });
    await sleep(4000);
    const cancelled = performance.now();
    ending.abort(new ImagingError('TASK_CANCELLED', 'Cannot go on: cancelled on the server'));
    const { error, report } = await began;
    t.is(error?.code, 'TASK_CANCELLED');
    t.true(performance.now() - cancelled < 6000);
    const found = report?.disks[0];
    t.like(found, { status: 'interrupted', verdict: null, blockSize: 8192 });
    t.true((found?.bytes ?? 0) > 0, 'it had begun');
    const { stdout } = await run('ps', ['-eo', 'args']);
    t.false(stdout.split('\n').some((line) => line.startsWith('badblocks') && line.includes(path)));
  },
);

test.serial('read-write: a cancel in the middle puts back what was being tested', async (t) => {
  const one = await disk(t, 600 * MIB);
  const before = await hashOf(one.loop.file);
  const ending = new AbortController();
  const params = { allInternal: true, mode: 'read-write' };
  const began = runTask([one.disk], params, { signal: ending.signal });
  const written = writtenTo(one.disk);
  for (let tries = 0; tries < 2000 && written() < 16 * MIB; tries++) await sleep(10);
  ending.abort(new ImagingError('TASK_CANCELLED', 'Cannot go on: cancelled'));
  const { error, report } = await began;
  t.is(error?.code, 'TASK_CANCELLED');
  t.is(report?.disks[0]?.status, 'interrupted');
  t.true((report?.disks[0]?.bytes ?? 0) < 600 * MIB);
  t.is(await hashOf(one.loop.file), before);
  t.is((await readFile(`/sys/class/block/${one.disk.name}/ro`, 'utf8')).trim(), '1', 'read-only again');
});

test.serial('read-write: an agent that is killed leaves no test pattern behind', async (t) => {
  const one = await disk(t, 600 * MIB);
  const before = await hashOf(one.loop.file);
  const agent = spawn(process.execPath, [
    join(import.meta.dirname, 'surface-killed-program.ts'),
    one.loop.path,
  ]);
  const ended = once(agent, 'exit');
  const written = writtenTo(one.disk);
  for (let tries = 0; tries < 2000 && written() < 16 * MIB; tries++) await sleep(10);
  t.true(agent.kill('SIGKILL'));
  await ended;
  t.true(written() < 600 * MIB, 'it was in the middle');
  const isRunning = async (): Promise<boolean> =>
    (await run('ps', ['-eo', 'args'])).stdout
      .split('\n')
      .some((line) => line.startsWith('badblocks') && line.includes(one.loop.path));
  for (let tries = 0; tries < 100 && (await isRunning()); tries++) await sleep(50);
  t.false(await isRunning());
  t.is(await hashOf(one.loop.file), before);
});

test.serial('a tool that says it tested all of a disk that it never read is not believed', async (t) => {
  const one = await disk(t, 16 * MIB);
  const folder = await mkdtemp(join(tmpdir(), 'liar-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const words = 'Pass completed, 0 bad blocks found. (0/0/0 errors)';
  await writeFile(`${folder}/badblocks`, `#!/bin/sh\necho '${words}' >&2\n`, { mode: 0o755 });
  const path = process.env['PATH'];
  process.env['PATH'] = `${folder}:${path}`;
  const { error, report } = await runTask([one.disk]).finally(() => {
    process.env['PATH'] = path;
  });
  t.is(error?.code, 'TOOL_FAILED');
  t.regex(error?.message ?? '', /the kernel counts/);
  t.is(report?.disks[0]?.status, 'failed');
});
