import { join } from 'node:path';
import test from 'ava';
import { run } from '../../../agent/process/run.ts';
import type { SurfaceDisk, TaskResult } from '../../../agent/protocol/index.ts';
import type { Machine } from '../../../scripts/lib/vm/machine.ts';
import { hashOf } from '../../integration/loop-device.ts';
import { attachForgetful, type Bench, createBench, createCleanups, MIB } from '../imaging/bench.ts';

const MAC = '52:54:00:00:41:01';
const WAIT = { timeoutMs: 300_000 };
/** single ones, neighbours, both ends of a block of 4 KiB, the first and the last of the disk */
const BAD = [0, 1001, 1002, 4007, 4008, 50_000, 131_071];
const RANGES = [
  [0, 1],
  [1001, 2],
  [4007, 2],
  [50_000, 1],
  [131_071, 1],
];
/** bytes a second of the disk that is pulled out */
const RATE = 4 * MIB;

const cleanups = createCleanups();
let bench: Bench;
let machine: Machine;
const files: Record<string, string> = {};
const before = new Map<string, string>();
const ids: Record<'read' | 'write' | 'huge' | 'pulled', string> = {
  read: '',
  write: '',
  huge: '',
  pulled: '',
};

/** A file with something in every MiB. */
const makeDisk = async (name: string, size: number): Promise<string> => {
  const file = join(bench.folder, `${name}.img`);
  await run('sh', ['-c', 'head -c "$1" /dev/urandom > "$2"', 'sh', String(size), file]);
  files[name] = file;
  before.set(name, await hashOf(file));
  return file;
};

test.before(async () => {
  bench = await createBench(cleanups);
  await bench.addHost('sick', MAC);
  await makeDisk('sick', 64 * MIB);
  await makeDisk('nvme', 32 * MIB);
  await makeDisk('sata', 32 * MIB);
  await makeDisk('usb', 64 * MIB);
  const huge = join(bench.folder, 'huge.qcow2');
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', huge, '20000000000000']);
  const slow = await attachForgetful(cleanups, files['usb'] ?? '', RATE);

  const add = (params: object, after: 'poweroff' | 'stay' = 'stay') =>
    bench.addTask('sick', 'surface-test', params, after);
  const serials = (...names: string[]) => ({ disks: names.map((serial) => ({ serial })) });
  ids.read = await add(serials('SICK', 'NVME', 'SATA'));
  ids.write = await add({ ...serials('NVME'), mode: 'read-write' });
  ids.huge = await add(serials('HUGE'));
  ids.pulled = await add(serials('USB'), 'poweroff');
  machine = await bench.startAgent(MAC, {
    disks: [
      { file: files['sata'] ?? '', serial: 'SATA', bus: 'sata' },
      { file: files['sick'] ?? '', serial: 'SICK', badSectors: BAD },
      { file: files['nvme'] ?? '', serial: 'NVME', bus: 'nvme' },
      { file: huge, format: 'qcow2', serial: 'HUGE' },
      { file: slow.file, serial: 'USB', bus: 'usb' },
    ],
  });
});
test.after.always(cleanups.run);

const diskOf = (result: TaskResult, serial: string): SurfaceDisk | undefined =>
  result.surface?.disks.find(({ facts }) => facts.serial === serial);

test.serial(
  'a disk with bad sectors is bad, and they are named exactly; healthy ones beside it pass, with SMART',
  async (t) => {
    const { result } = await bench.ended(ids.read);
    t.is(result.outcome, 'succeeded', JSON.stringify(result.error));
    const sick = diskOf(result, 'SICK');
    t.deepEqual(
      sick?.bad.ranges.map(({ lba, sectors }) => [lba, sectors]),
      RANGES,
    );
    t.like(sick, { verdict: 'bad', bytes: 64 * MIB, bad: { sectors: BAD.length, bytes: BAD.length * 512 } });
    t.regex(sick?.reasons[0] ?? '', /^7 bad sectors in 5 ranges, the first at LBA 0$/);
    t.regex(await bench.api.text(`/api/tasks/${ids.read}/log?format=text`), /bad block at LBA 1000 /);

    for (const serial of ['NVME', 'SATA']) {
      const disk = diskOf(result, serial);
      t.like(disk, {
        status: 'tested',
        bytes: 32 * MIB,
        bad: { sectors: 0 },
        smart: { after: { passed: true } },
      });
      t.not(disk?.verdict, 'bad', disk?.reasons.join());
      t.is(disk?.smart?.after.unavailable, null, 'QEMU’s drives answer SMART');
      t.true(disk?.latency?.cells.every(({ reads }) => reads > 0));
      t.is(disk?.kernel?.written, 0);
    }
    t.is(diskOf(result, 'NVME')?.smart?.after.mediaErrors, 0);
    t.is(diskOf(result, 'SATA')?.smart?.after.reallocated, 0);
    t.is(diskOf(result, 'USB')?.status, 'skipped');
    t.true((await hashOf(files['sata'] ?? '')) === before.get('sata'));
  },
);

test.serial('read-write mode writes to every block, and leaves the disk as it was', async (t) => {
  const { result } = await bench.ended(ids.write);
  t.is(result.outcome, 'succeeded', JSON.stringify(result.error));
  const disk = diskOf(result, 'NVME');
  t.like(disk, { status: 'tested', bytes: 32 * MIB, bad: { sectors: 0 } });
  t.true((disk?.kernel?.written ?? 0) >= 64 * MIB, 'the pattern, then the content');
  t.true((await hashOf(files['nvme'] ?? '')) === before.get('nvme'));
});

test.serial(
  'a sparse disk of 20 TB is tested; a cancel from the server ends it within seconds',
  async (t) => {
    await bench.reached(ids.huge, 'surface', 0.0001);
    const cancelled = performance.now();
    await bench.api.post(`/api/tasks/${ids.huge}/cancel`);
    const { task, result } = await bench.ended(ids.huge);
    t.true(performance.now() - cancelled < 10_000);
    t.is(task.state, 'cancelled');
    const disk = diskOf(result, 'HUGE');
    t.like(disk, { status: 'interrupted', verdict: null, blockSize: 8192, bad: { sectors: 0 } });
    t.true((disk?.bytes ?? 0) >= 2e9);
  },
);

test.serial(
  'a disk that is pulled out in the middle is reported as that, with what is known of it',
  async (t) => {
    await bench.reached(ids.pulled, 'surface', 0.05);
    await machine.qmp('device_del', { id: 'disk4' });
    const { result } = await bench.ended(ids.pulled);
    t.is(result.outcome, 'failed');
    t.is(result.error?.code, 'DISK_LOST');
    const disk = diskOf(result, 'USB');
    t.like(disk, { status: 'failed', verdict: 'bad' });
    t.regex(disk?.reasons[0] ?? '', /gone from the system|gave up on it/);
    await machine.waitForExit(WAIT);
  },
);
