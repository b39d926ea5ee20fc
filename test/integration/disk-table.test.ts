import { randomBytes } from 'node:crypto';
import { open } from 'node:fs/promises';
import test from 'ava';
import fc from 'fast-check';
import { claimDisk } from '../../agent/disk/claim.ts';
import { readAt, writeAt } from '../../agent/disk/device-io.ts';
import { addPartitions, flushDevice } from '../../agent/disk/partition-nodes.ts';
import { planDeploy } from '../../agent/disk/planner.ts';
import { kernelNameOf, readAttribute, sysfsOf } from '../../agent/disk/sysfs.ts';
import { compareTable, readTable, removeTable, wholeDisk, writeTable } from '../../agent/disk/table.ts';
import { run } from '../../agent/process/run.ts';
import { anyDisk } from '../agent/disk/layout-cases.ts';
import { imageOf, target } from '../agent/disk/planner-cases.ts';
import { ESP, partition, planFor } from './disk-plan.ts';
import { attachLoop, diskOf, hashOf, MIB } from './loop-device.ts';

const gptPartitions = (unit: number) => [
  partition(1, MIB, 4 * MIB, {
    type: ESP,
    label: 'EFI "System", äöü \\ $x',
    attributes: 'RequiredPartition GUID:63',
  }),
  partition(5, 6 * MIB, 3 * MIB, { label: '日本語 😀 ends here', attributes: 'LegacyBIOSBootable' }),
  partition(2, 10 * MIB, 5 * MIB + unit, { label: 'x'.repeat(36) }),
  partition(128, 20 * MIB, MIB, { label: '' }),
];

for (const sectorSize of [512, 4096]) {
  test(`a GPT on ${sectorSize}-byte sectors is read back as it was planned, labels and all`, async (t) => {
    const { path } = await attachLoop(t, 64 * MIB, { sectorSize });
    await using claim = await claimDisk(await diskOf(path));
    const plan = planFor(claim.disk, { partitions: gptPartitions(sectorSize) });
    await addPartitions(claim, plan);
    const bootArea = randomBytes(MIB);
    const table = await writeTable(claim, plan, { bootArea });
    t.is(table.kind, 'gpt');
    t.is(table.id, plan.tableId);
    t.deepEqual(
      table.partitions.map(({ number, start, size, type, uuid, label, attributes }) => ({
        ...{ number, start, size, type, uuid, label, attributes },
      })),
      plan.partitions.map(({ number, start, size, type, uuid, label, attributes }) => ({
        ...{ number, start, size, type, uuid, label, attributes },
      })),
    );
    t.deepEqual(await readTable(path), table);
    const sector = await readAt(path, 0, 512);
    t.true(sector.subarray(0, 440).equals(bootArea.subarray(0, 440)));
    t.deepEqual([...sector.subarray(510)], [0x55, 0xaa]);
    t.is(await readAttribute(sysfsOf(`${kernelNameOf(path)}p128`), 'start'), String((20 * MIB) / 512));

    await removeTable(claim);
    t.deepEqual((await readTable(path)).kind, 'none');
    t.is(await readAttribute(sysfsOf(`${kernelNameOf(path)}p128`), 'start'), null);
  });
}

test('an MBR is read back as it was planned, with boot code and the gap behind it', async (t) => {
  const { path } = await attachLoop(t, 64 * MIB);
  await using claim = await claimDisk(await diskOf(path));
  const plan = planFor(claim.disk, {
    table: 'dos',
    tableId: '0x0badcafe',
    partitions: [
      partition(1, 63 * 512, 8 * MIB, { type: '07', uuid: '', attributes: 'bootable' }),
      partition(3, 9 * MIB, 4 * MIB, { type: '82', uuid: '' }),
    ],
  });
  const content = randomBytes(4096);
  await writeAt(path, [{ offset: 63 * 512, bytes: content }]);
  const bootArea = randomBytes(MIB);
  const table = await writeTable(claim, plan, { bootArea });
  t.is(table.id, '0x0badcafe');
  t.deepEqual(
    table.partitions.map(({ number, type, attributes }) => [number, type, attributes]),
    [
      [1, '07', 'bootable'],
      [3, '82', ''],
    ],
  );
  t.true((await readAt(path, 0, 440)).equals(bootArea.subarray(0, 440)));
  t.true((await readAt(path, 512, 62 * 512)).equals(bootArea.subarray(512, 63 * 512)));
  t.true((await readAt(path, 63 * 512, 4096)).equals(content));
});

test('a table is removed with both GPT copies, MBR and whole-disk signatures; kept ranges stay', async (t) => {
  const { path } = await attachLoop(t, 64 * MIB);
  await run('mkfs.ext4', ['-q', path]);
  await using claim = await claimDisk(await diskOf(path));
  const plan = planFor(claim.disk, { partitions: [partition(1, MIB, 62 * MIB)] });
  await writeTable(claim, plan);
  const data = randomBytes(MIB);
  await writeAt(path, [{ offset: 2 * MIB, bytes: data }]);
  await removeTable(claim, { keep: plan.partitions });
  const { stdout } = await run('wipefs', ['--no-act', path]);
  t.is(stdout, '');
  t.true((await readAt(path, 64 * MIB - 33 * 512, 33 * 512)).every((byte) => byte === 0));
  t.true((await readAt(path, 2 * MIB, MIB)).equals(data));
});

test('hybrid MBR and foreign tables are unsupported', async (t) => {
  const { path } = await attachLoop(t, 64 * MIB);
  await run('sgdisk', ['-n', '1:2048:+8M', '-n', '2:0:+8M', '-h', '1', path]);
  await t.throwsAsync(readTable(path), { code: 'LAYOUT_UNSUPPORTED', message: /hybrid MBR/ });
  await run('sgdisk', ['--zap-all', path]);
  await run('sfdisk', ['--quiet', '--no-reread', path], { input: 'label: sun\n', okExitCodes: [0, 1] });
  await t.throwsAsync(readTable(path), { code: 'LAYOUT_UNSUPPORTED', message: /of kind sun/ });
});

test('a label that no table can hold is refused', async (t) => {
  const { path } = await attachLoop(t, 16 * MIB);
  await using claim = await claimDisk(await diskOf(path));
  const plan = planFor(claim.disk, { partitions: [partition(1, MIB, 4 * MIB, { label: 'x'.repeat(37) })] });
  await t.throwsAsync(writeTable(claim, plan), { code: 'LAYOUT_UNSUPPORTED' });
});

test('a plan for another disk is not written', async (t) => {
  const { path } = await attachLoop(t, 16 * MIB);
  await using claim = await claimDisk(await diskOf(path));
  const before = await hashOf(path);
  const plan = planFor({ ...claim.disk, size: 32 * MIB }, { partitions: [partition(1, MIB, 4 * MIB)] });
  await t.throwsAsync(writeTable(claim, plan), { code: 'DISK_CHANGED' });
  t.is(await hashOf(path), before);
});

for (const sectorSize of [512, 4096]) {
  test(`real sfdisk writes every plan as it was made (${sectorSize}-byte sectors)`, async (t) => {
    const { path, file } = await attachLoop(t, 64 * MIB, { sectorSize });
    const ofThisSize = anyDisk.filter(
      (disk) => disk.logicalSectorSize === sectorSize && disk.table !== 'none' && disk.size > 4 * MIB,
    );
    await using handle = await open(file, 'r+');
    for (const [index, source] of fc.sample(ofThisSize, { numRuns: 10, seed: 7 }).entries()) {
      const image = { ...imageOf({ size: source.size, partitions: [] }), disks: [source] };
      const size = source.size + (index % 2) * 64 * MIB;
      const plan = planDeploy(image, target({ size, logicalSectorSize: sectorSize }), {
        firmware: image.firmware,
        grow: true,
      });
      await handle.truncate(size);
      await run('losetup', ['--set-capacity', path]);
      await using claim = await claimDisk(await diskOf(path));
      await removeTable(claim);
      const table = await writeTable(claim, plan);
      t.deepEqual(compareTable(table, plan), []);
    }
  });

  test(`17 partitions, gaps and numbers in any order (${sectorSize}-byte sectors)`, async (t) => {
    const { path } = await attachLoop(t, 64 * MIB, { sectorSize });
    const numbers = [17, 3, 128, 1, 40, 9, 10, 11, 100, 2, 12, 99, 21, 20, 4, 6, 5];
    await using claim = await claimDisk(await diskOf(path));
    const partitions = numbers.map((number, index) => partition(number, (1 + 3 * index) * MIB, MIB));
    const plan = planFor(claim.disk, { partitions });
    await writeTable(claim, plan);
    const { stdout } = await run('sgdisk', ['--print', path]);
    const rows = [...stdout.matchAll(/^ +(\d+) +(\d+) +\d+ /gm)].map((row) => [
      Number(row[1]),
      Number(row[2]),
    ]);
    t.deepEqual(
      rows,
      partitions.map(({ number, start }) => [number, start / sectorSize]).sort(([a = 0], [b = 0]) => a - b),
    );
    for (const { number, start } of partitions) {
      const folder = sysfsOf(`${kernelNameOf(path)}p${number}`);
      t.is(await readAttribute(folder, 'start'), String(start / 512));
    }
  });
}

const gptOn = async (path: string): Promise<void> => {
  await run('sgdisk', ['--clear', '-n', '1:2048:+8M', '-c', '1:root', path]);
};

test('a damaged backup GPT is read with a warning, a damaged primary is refused with what to run', async (t) => {
  const { path, file } = await attachLoop(t, 32 * MIB);
  await gptOn(path);
  t.deepEqual((await readTable(path)).warnings, []);
  await writeAt(path, [{ offset: 32 * MIB - 512, bytes: randomBytes(512) }]);
  const table = await readTable(path);
  t.is(table.partitions[0]?.label, 'root');
  t.regex(table.warnings.join(), /backup GPT/);

  await gptOn(path);
  await writeAt(path, [{ offset: 512 + 56, bytes: randomBytes(16) }]);
  const error = await t.throwsAsync(readTable(path), { code: 'LAYOUT_UNSUPPORTED' });
  t.regex(error?.message ?? '', /primary GPT is damaged.*sgdisk -e/);
  await run('sgdisk', ['-e', path]);
  t.is((await readTable(path)).partitions[0]?.label, 'root');

  await writeAt(path, [{ offset: 1024, bytes: randomBytes(128) }]);
  await t.throwsAsync(readTable(path), { code: 'LAYOUT_UNSUPPORTED', message: /primary GPT is damaged/ });
  await writeAt(path, [{ offset: 32 * MIB - 512, bytes: randomBytes(512) }]);
  await t.throwsAsync(readTable(path), {
    code: 'LAYOUT_UNSUPPORTED',
    message: /the primary copy and the backup/,
  });

  await gptOn(path);
  await using handle = await open(file, 'r+');
  await handle.truncate(40 * MIB);
  await run('losetup', ['--set-capacity', path]);
  t.regex((await readTable(path)).warnings.join(), /not at the end/);
});

test('a stale GPT behind an MBR is not seen', async (t) => {
  const { path } = await attachLoop(t, 32 * MIB);
  await gptOn(path);
  await run('sfdisk', ['--quiet', '--no-reread', '--wipe', 'never', path], {
    input: 'label: dos\nstart=4096, size=4096\n',
    okExitCodes: [0, 1],
  });
  const table = await readTable(path);
  t.is(table.kind, 'dos');
  t.deepEqual(
    table.partitions.map(({ start }) => start),
    [2 * MIB],
  );
});

for (const [type, command] of [
  ['vfat', ['mkfs.vfat', '-I']],
  ['vfat with an MBR of its own', ['mkfs.vfat', '-I', '--mbr=y']],
  ['ntfs', ['mkntfs', '--quick', '--force']],
  ['exfat', ['mkfs.exfat']],
  ['ext4', ['mkfs.ext4', '-qF']],
  ['swap', ['mkswap']],
] as const) {
  test(`${type} on the whole disk is no table; as a partition it is the whole disk`, async (t) => {
    const { path } = await attachLoop(t, 32 * MIB);
    const [tool, ...args] = command;
    await run(tool, [...args, path]);
    const table = await readTable(path);
    t.is(table.kind, 'none');
    t.deepEqual(table.partitions, []);
    t.deepEqual(wholeDisk(table, path).partitions, [
      {
        ...{ path, number: 1, start: 0, size: 32 * MIB, type: '', uuid: '', label: '', attributes: '' },
        bootRecord: null,
      },
    ]);
  });
}

test('a disk that was to have no table and has one is not called done', async (t) => {
  const { path } = await attachLoop(t, 32 * MIB);
  await using claim = await claimDisk(await diskOf(path));
  const plan = planFor(claim.disk, { table: 'none', tableId: '', partitions: [partition(1, 0, 32 * MIB)] });
  t.is((await writeTable(claim, plan)).kind, 'none');
  await gptOn(path);
  await t.throwsAsync(writeTable(claim, plan), { code: 'READ_BACK_MISMATCH', message: /kind gpt/ });
});

test('an MBR whose first sector also looks like FAT keeps its partitions', async (t) => {
  const { path } = await attachLoop(t, 64 * MIB);
  await run('mkfs.vfat', ['-I', path]);
  await run('sfdisk', ['--quiet', '--no-reread', '--wipe', 'never', path], {
    input: 'label: dos\nstart=4096, size=4096\n',
    okExitCodes: [0, 1],
  });
  const { kind, partitions } = await readTable(path);
  t.deepEqual([kind, partitions.length], ['dos', 1]);
  t.is(wholeDisk(await readTable(path), path).partitions.length, 1);
});

test('kept partitions stay in the new table; a plan into the present layout writes no byte', async (t) => {
  const { path } = await attachLoop(t, 64 * MIB);
  await using claim = await claimDisk(await diskOf(path));
  const [root, data] = [
    partition(1, MIB, 8 * MIB),
    partition(4, 20 * MIB, 8 * MIB, { label: 'Daten, "alt"' }),
  ];
  await writeTable(claim, planFor(claim.disk, { partitions: [root, data] }));
  const content = randomBytes(8 * MIB);
  await writeAt(path, [{ offset: 20 * MIB, bytes: content }]);

  const fresh = planFor(claim.disk, { tableId: '11111111-1111-4111-8111-111111111111' });
  const table = await writeTable(claim, { ...fresh, oldTable: 'replaced', partitions: [root], kept: [data] });
  t.is(table.partitions.find(({ number }) => number === 4)?.label, 'Daten, "alt"');
  t.true((await readAt(path, 20 * MIB, 8 * MIB)).equals(content));

  await flushDevice(path);
  const before = await hashOf(path);
  const stays = { ...fresh, oldTable: 'stays' as const, partitions: [root], kept: [data] };
  await addPartitions(claim, stays);
  await writeTable(claim, stays, { bootArea: randomBytes(MIB) });
  t.is(await readAttribute(sysfsOf(`${kernelNameOf(path)}p4`), 'start'), String((20 * MIB) / 512));
  const other = { ...stays, kept: [{ ...data, start: 21 * MIB }] };
  await t.throwsAsync(writeTable(claim, other), {
    code: 'READ_BACK_MISMATCH',
    message: /start of partition 4/,
  });
  await flushDevice(path);
  t.is(await hashOf(path), before);
});
