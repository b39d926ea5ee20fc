import { randomBytes } from 'node:crypto';
import test from 'ava';
import { claimDisk } from '../../agent/disk/claim.ts';
import { readAt, writeAt } from '../../agent/disk/device-io.ts';
import { layoutProblem } from '../../agent/disk/layout-check.ts';
import { planDeploy } from '../../agent/disk/planner.ts';
import { kernelNameOf, readAttribute, sysfsOf } from '../../agent/disk/sysfs.ts';
import { type DiskTable, readTable, removeTable, writeTable } from '../../agent/disk/table.ts';
import { run } from '../../agent/process/run.ts';
import type { Manifest } from '../../agent/protocol/index.ts';
import { imageOf, partitionOf } from '../agent/disk/planner-cases.ts';
import { attachLoop, diskOf, MIB } from './loop-device.ts';

const bios = { firmware: 'bios', grow: false } as const;

/** The image that a capture of this table would make, without content. */
const imageFrom = (table: DiskTable): Manifest => {
  const { size, logicalSectorSize, extended, partitions, id } = table;
  const image = imageOf({
    ...{ size, table: 'dos', firmware: 'bios', extended },
    logicalSectorSize: logicalSectorSize === 4096 ? 4096 : 512,
    partitions: partitions.map((one) => ({
      ...partitionOf(one.number, one.start, one.size, { type: one.type }),
      ...{ attributes: one.attributes, bootRecord: one.bootRecord },
    })),
  });
  return { ...image, disks: image.disks.map((disk) => ({ ...disk, tableId: id })) };
};

/** sfdisk's own table on one disk, ours on another of the same size. */
const deployed = async (t: Parameters<typeof attachLoop>[0], script: string, sectorSize = 512) => {
  const source = await attachLoop(t, 128 * MIB, { sectorSize });
  await run('sfdisk', ['--quiet', '--no-reread', source.path], { input: script, okExitCodes: [0, 1] });
  const table = await readTable(source.path);
  const image = imageFrom(table);
  t.is(layoutProblem(image.disks[0] as Manifest['disks'][0]), null);
  const goal = await attachLoop(t, 128 * MIB, { sectorSize });
  await writeAt(goal.path, [{ offset: 0, bytes: randomBytes(128 * MIB) }]);
  await using claim = await claimDisk(await diskOf(goal.path));
  const plan = planDeploy(image, claim.disk, bios);
  await removeTable(claim);
  const written = await writeTable(claim, plan);
  return { source: source.path, goal: goal.path, table, written };
};

const withoutPaths = ({ partitions, ...table }: DiskTable) => ({
  ...table,
  partitions: partitions.map(({ path: _path, ...partition }) => partition),
});

const scripts = {
  'three primaries and three logical ones': `label: dos
start=63, size=20000, type=7, bootable
start=20480, size=20480, type=83
start=40960, type=f
start=61440, size=4096, type=82
start=43008, size=4096, type=83, bootable
start=49152, size=8192, type=7
start=131072, size=4096, type=83
`,
  'a chain whose numbers go against its places': `label: dos
start=2048, size=2048, type=83
start=8192, size=200000, type=5
start=100000, size=4096, type=83
start=20480, size=4096, type=83
start=60001, size=4001, type=83
`,
  'an empty container': `label: dos
start=2048, size=2048, type=83
start=8192, size=200000, type=85
`,
};

for (const [name, text] of Object.entries(scripts)) {
  for (const sectorSize of [512, 4096]) {
    // the scripts count in sectors of 512 bytes; an odd start is no start on larger ones
    const lines = text.replaceAll(/(start|size)=(\d+)/g, (_all, key: string, sectors: string) =>
      sectorSize === 512 ? `${key}=${sectors}` : `${key}=${Math.ceil(Number(sectors) / 8)}`,
    );
    const script = name.startsWith('three')
      ? lines.replace(
          /^start=(40960|5120), type=f$/m,
          (line) => `${line.replace(', type', `, size=${sectorSize === 512 ? 81920 : 10240}, type`)}`,
        )
      : lines;
    test(`${name}: table and boot records come back byte for byte (${sectorSize}-byte sectors)`, async (t) => {
      const { source, goal, table, written } = await deployed(t, script, sectorSize);
      t.truthy(table.extended);
      t.deepEqual(withoutPaths(written), withoutPaths(table));
      t.true((await readAt(goal, 440, 72)).equals(await readAt(source, 440, 72)));
      const records = table.partitions.flatMap(({ bootRecord }) => (bootRecord === null ? [] : [bootRecord]));
      for (const at of [table.extended?.start ?? 0, ...records]) {
        // behind them sfdisk 2.38 leaves whatever its memory held
        const [ours, sfdisks] = [await readAt(goal, at, 512), await readAt(source, at, 512)];
        t.is(ours.toString('hex'), sfdisks.toString('hex'), `boot record at ${at}`);
      }
      for (const { number, start } of table.partitions) {
        const folder = sysfsOf(`${kernelNameOf(goal)}p${number}`);
        t.is(await readAttribute(folder, 'start'), String(start / 512));
      }
    });
  }
}

test('a chain of 60: sfdisk reads the 56 that it can, the kernel and we all of them', async (t) => {
  const { path } = await attachLoop(t, 128 * MIB);
  await using claim = await claimDisk(await diskOf(path));
  const partitions = Array.from({ length: 60 }, (_value, index) => ({
    ...partitionOf(5 + index, (2 * index + 3) * MIB, MIB, { type: '83' }),
    bootRecord: (2 * index + 2) * MIB,
  }));
  const image = imageOf({
    ...{ size: 128 * MIB, table: 'dos', firmware: 'bios', partitions },
    extended: { number: 1, start: 2 * MIB, size: 125 * MIB, type: '05' },
  });
  const plan = planDeploy(image, claim.disk, bios);
  const table = await writeTable(claim, plan);
  t.is(table.partitions.length, 60);
  t.is(await readAttribute(sysfsOf(`${kernelNameOf(path)}p64`), 'start'), String((121 * MIB) / 512));
  const { stdout } = await run('sfdisk', ['--json', path]);
  t.is(JSON.parse(stdout).partitiontable.partitions.length, 57);
  await run('partx', ['--delete', path], { okExitCodes: [0, 1] });
  const { stdout: listed } = await run('partx', ['--show', '--noheadings', '--output', 'NR', path]);
  t.is(listed.trim().split('\n').length, 61);
});

const chainOf = async (path: string): Promise<void> => {
  await run('sfdisk', ['--quiet', '--no-reread', path], {
    input: scripts['three primaries and three logical ones'].replace(
      'start=40960,',
      'start=40960, size=81920,',
    ),
    okExitCodes: [0, 1],
  });
};

test('a chain that is cut, endless or of another form is refused', async (t) => {
  const { path } = await attachLoop(t, 128 * MIB);
  await chainOf(path);
  const { partitions } = await readTable(path);
  const second = partitions.find(({ number }) => number === 6)?.bootRecord ?? 0;
  const record = await readAt(path, second, 512);
  const changed = (at: number, value: number): Buffer => {
    const copy = Buffer.from(record);
    copy.writeUInt32LE(value, at);
    return copy;
  };
  const cases: [Buffer, RegExp][] = [
    [Buffer.alloc(512), /no boot record/],
    // the link: start is 8 bytes into the second entry
    [changed(446 + 16 + 8, 0), /leads back/],
    [changed(446 + 16 + 8, 4_000_000), /outside/],
    [changed(446 + 12, 4_000_000), /outside the extended one/],
    [changed(446 + 8, 0), /outside the extended one/],
    [
      Buffer.concat([record.subarray(0, 446 + 32), record.subarray(446, 462), record.subarray(494)]),
      /several/,
    ],
  ];
  for (const [bytes, reason] of cases) {
    await writeAt(path, [{ offset: second, bytes }]);
    await t.throwsAsync(readTable(path), { code: 'LAYOUT_UNSUPPORTED', message: reason });
  }
  await writeAt(path, [{ offset: second, bytes: record }]);
  t.is((await readTable(path)).partitions.length, 6);
});
