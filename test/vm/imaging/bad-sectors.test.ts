import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { run } from '../../../agent/process/run.ts';
import type { Manifest, TaskResult } from '../../../agent/protocol/index.ts';
import type { DiskOptions } from '../../../scripts/lib/vm/hardware.ts';
import type { TaskAnswer } from '../../../server-stub/api.ts';
import { type Bench, createBench, createCleanups, MIB, makeSmallDisk, type SmallDisk } from './bench.ts';

const MAC = '52:54:00:00:30:01';
const BLOCK = 4096;

const cleanups = createCleanups();
let bench: Bench;
let source: SmallDisk;
/** 512-byte sectors of the disk: in the middle of /file5, and in a block that no file uses */
let bad: { used: number; free: number };
const results = new Map<string, TaskResult>();
let target = '';
/** write operations that each boot's disks saw */
const writes: number[][] = [];

/** A file system's own view of its blocks: debugfs, no mount. */
const debugfs = async (disk: Pick<SmallDisk, 'file' | 'partition'>, command: string): Promise<string> =>
  (await run('debugfs', ['-R', command, `${disk.file}?offset=${disk.partition.start}`])).stdout;

const contentOf = async (file: string, name: string): Promise<Buffer> => {
  const copy = join(bench.folder, 'copy');
  await debugfs({ file, partition: source.partition }, `dump /${name} ${copy}`);
  return readFile(copy);
};

test.before(async () => {
  bench = await createBench(cleanups);
  source = await makeSmallDisk(bench.folder, 24 * MIB);
  const first = source.partition.start / 512;
  const sectorOf = (block: string): number => first + (Number(/\d+/.exec(block)?.[0]) * BLOCK) / 512;
  bad = {
    used: sectorOf(await debugfs(source, 'bmap /file5 100')) + 3,
    free: sectorOf((await debugfs(source, 'ffb')).split(':')[1] ?? ''),
  };
  target = join(bench.folder, 'target.img');
  await run('truncate', ['-s', String(source.size), target]);
  await bench.addHost('sick', MAC);
  const disks = [
    { file: source.file, serial: 'SICK', badSectors: [bad.used, bad.free] },
    { file: target, serial: 'DST' },
  ];
  const sick = { image: 'sick', disk: { serial: 'SICK' } };
  await boot(disks, [
    ['refused', 'capture', sick],
    ['rescued', 'capture', { ...sick, rescue: true }],
  ]);
  const again = { image: 'sick', disk: { serial: 'DST' } };
  await boot(disks, [
    ['damaged', 'deploy', again],
    ['allowed', 'deploy', { ...again, allowDamaged: true }],
  ]);
});
test.after.always(cleanups.run);

/** One start of the machine for all of these tasks, in this order. */
const boot = async (disks: DiskOptions[], tasks: [string, string, object][]): Promise<void> => {
  const ids: [string, string][] = [];
  for (const [at, [name, type, params]] of tasks.entries()) {
    const after = at === tasks.length - 1 ? 'poweroff' : 'stay';
    const { id } = await bench.api.post<TaskAnswer>('/api/tasks', { host: 'sick', type, params, after });
    ids.push([name, id]);
  }
  const machine = await bench.startAgent(MAC, { disks });
  const { disks: counted } = await machine.waitForExit({ timeoutMs: 300_000 });
  for (const [name, id] of ids) results.set(name, (await bench.ended(id)).result);
  writes.push(counted.map((disk) => disk.writes));
};

const resultOf = (name: string): TaskResult => {
  const result = results.get(name);
  if (!result) throw new Error(`there is no result of ${name}`);
  return result;
};

test('a used sector that cannot be read: the capture is refused with its LBA, partition and file', (t) => {
  const { outcome, error } = resultOf('refused');
  t.is(outcome, 'failed');
  t.is(error?.code, 'DISK_READ_FAILED');
  t.deepEqual(error?.details['ranges'], [{ lba: bad.used, sectors: 1 }]);
  t.is(error?.details['partition'], 'p1');
  t.deepEqual(error?.details['files'], ['/file5']);
});

test('rescue reads around it: the manifest lists exactly that sector, a bad sector of free space does not matter', async (t) => {
  const { outcome, error, warnings, summary, image } = resultOf('rescued');
  t.is(outcome, 'succeeded', JSON.stringify(error));
  t.true(warnings.some((text) => text.includes(`sectors ${bad.used})`) && text.includes('/file5')));
  t.regex(summary, /damaged: 512 bytes of p1/);
  const text = await readFile(
    join(bench.data, 'images/sick', String(image?.version), 'manifest.json'),
    'utf8',
  );
  const manifest: Manifest = JSON.parse(text);
  t.deepEqual(manifest.disks[0]?.partitions[0]?.damaged, [
    { start: bad.used * 512 - source.partition.start, size: 512 },
  ]);
  t.deepEqual(writes[0], [0, 0], 'neither capture wrote to a disk');
});

test('the damaged image is deployed only when allowed, and is the source but for that sector', async (t) => {
  t.is(resultOf('damaged').error?.code, 'IMAGE_DAMAGED');
  const { outcome, error, warnings } = resultOf('allowed');
  t.is(outcome, 'succeeded', JSON.stringify(error));
  t.true(warnings.some((text) => text.includes('512 bytes of p1')));
  for (let number = 0; number < 10; number++) {
    const [wanted, got] = [
      await contentOf(source.file, `file${number}`),
      await contentOf(target, `file${number}`),
    ];
    if (number === 5) wanted.fill(0, 100 * BLOCK + 3 * 512, 100 * BLOCK + 4 * 512);
    t.true(got.equals(wanted), `file${number}`);
  }
});
