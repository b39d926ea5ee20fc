import { randomBytes } from 'node:crypto';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { assertClaim, claimDisk, type DiskClaim } from '../../agent/disk/claim.ts';
import { readAt, writeAt } from '../../agent/disk/device-io.ts';
import { discardRanges } from '../../agent/disk/discard.ts';
import { listDisks } from '../../agent/disk/disk.ts';
import { mountReadOnly } from '../../agent/disk/mount.ts';
import { addPartitions, flushDevice, removePartitions } from '../../agent/disk/partition-nodes.ts';
import { selectDisk } from '../../agent/disk/select.ts';
import { kernelNameOf, readAttribute, sysfsOf } from '../../agent/disk/sysfs.ts';
import { readTable, removeTable, writeTable } from '../../agent/disk/table.ts';
import { driverFor } from '../../agent/filesystem/index.ts';
import { run } from '../../agent/process/run.ts';
import { partition, planFor } from './disk-plan.ts';
import { attachLoop, diskOf, hashOf, MIB } from './loop-device.ts';

const { signal } = new AbortController();
const readOnlyFlag = async (path: string): Promise<string | null> =>
  await readAttribute(sysfsOf(kernelNameOf(path)), 'ro');

test('a claim lifts read-only, a release sets it again, and nothing is written by either', async (t) => {
  const { path } = await attachLoop(t, 16 * MIB);
  await run('blockdev', ['--setro', path]);
  const before = await hashOf(path);
  const claim = await claimDisk(await diskOf(path));
  t.is(await readOnlyFlag(path), '0');
  t.notThrows(() => assertClaim(claim));
  await claim.release();
  await claim.release();
  t.is(await readOnlyFlag(path), '1');
  t.throws(() => assertClaim(claim), { code: 'INTERNAL' });
  t.is(await hashOf(path), before);
  await t.throwsAsync(writeAt(path, [{ offset: 0, bytes: new Uint8Array(512) }]), {
    code: 'DISK_WRITE_FAILED',
  });
});

test('what only looks like a claim writes nothing', async (t) => {
  const { path } = await attachLoop(t, 16 * MIB);
  const disk = await diskOf(path);
  const forged = { path, disk } as unknown as DiskClaim;
  const before = await hashOf(path);
  const plan = planFor(disk, { partitions: [partition(1, MIB, 4 * MIB)] });
  await t.throwsAsync(removeTable(forged), { code: 'INTERNAL' });
  await t.throwsAsync(writeTable(forged, plan), { code: 'INTERNAL' });
  await t.throwsAsync(addPartitions(forged, plan), { code: 'INTERNAL' });
  await t.throwsAsync(removePartitions(forged), { code: 'INTERNAL' });
  await t.throwsAsync(discardRanges(forged, [{ start: 0, size: MIB }]), { code: 'INTERNAL' });
  t.is(await hashOf(path), before);
});

test('a disk whose serial, WWN, size or number has changed is not claimed and stays read-only', async (t) => {
  const { path, file } = await attachLoop(t, 16 * MIB);
  await run('blockdev', ['--setro', path]);
  const disk = await diskOf(path);
  const before = await hashOf(path);
  for (const change of [
    { serial: 'OTHER' },
    { wwn: '0x5000c500a1b2c3d4' },
    { sequence: 1 },
    { size: 8 * MIB },
    { path: '/dev/gone' },
  ]) {
    await t.throwsAsync(claimDisk({ ...disk, ...change }), { code: 'DISK_CHANGED' });
    t.is(await readOnlyFlag(path), '1');
  }
  await using handle = await open(file, 'r+');
  await handle.truncate(20 * MIB);
  await run('losetup', ['--set-capacity', path]);
  const error = await t.throwsAsync(claimDisk(disk), { code: 'DISK_CHANGED' });
  t.regex(error?.message ?? '', /size was 16777216, is 20971520/);
  t.is(await readOnlyFlag(path), '1');
  await handle.truncate(16 * MIB);
  await run('losetup', ['--set-capacity', path]);
  t.is(await hashOf(path), before);
});

test('a disk that is mounted, swapped on, under a loop device or claimed already is in use', async (t) => {
  const { path } = await attachLoop(t, 32 * MIB);
  await run('mkfs.ext4', ['-q', path]);
  const disk = await diskOf(path);
  const folder = await mkdtemp(join(tmpdir(), 'in-use-'));
  t.teardown(async () => await rm(folder, { recursive: true }));
  await run('mount', [path, folder]);
  const error = await t.throwsAsync(claimDisk(disk), { code: 'DISK_IN_USE' });
  t.regex(error?.message ?? '', new RegExp(`mounted on ${folder}`));
  await run('umount', [folder]);

  const claim = await claimDisk(disk);
  await t.throwsAsync(claimDisk(disk), { code: 'DISK_IN_USE' });
  await claim.release();
  await using _again = await claimDisk(disk);
  t.pass();
});

test('a partition that is mounted holds the whole disk', async (t) => {
  const { path } = await attachLoop(t, 32 * MIB);
  await run('sfdisk', ['--quiet', path], {
    input: 'label: gpt\nstart=2048, size=20480\n',
    okExitCodes: [0, 1],
  });
  await run('partx', ['--update', path]);
  await run('mkfs.ext4', ['-q', `${path}p1`]);
  const disk = await diskOf(path);
  t.deepEqual(
    disk.partitions.map(({ number, start, size, filesystem }) => ({ number, start, size, filesystem })),
    [{ number: 1, start: MIB, size: 10 * MIB, filesystem: 'ext4' }],
  );
  const folder = await mkdtemp(join(tmpdir(), 'in-use-'));
  t.teardown(async () => await rm(folder, { recursive: true }));
  await run('mount', [`${path}p1`, folder]);
  try {
    await t.throwsAsync(claimDisk(disk), { code: 'DISK_IN_USE' });
  } finally {
    await run('umount', [folder]);
  }
});

test('a release takes back partition devices that a failed task left', async (t) => {
  const { path } = await attachLoop(t, 32 * MIB);
  const claim = await claimDisk(await diskOf(path));
  const nodes = await addPartitions(claim, planFor(claim.disk, { partitions: [partition(1, MIB, 4 * MIB)] }));
  const node = nodes.get('p1') ?? '';
  const data = randomBytes(4096);
  await writeAt(node, [{ offset: 0, bytes: data }]);
  await claim.release();
  t.is(await readAttribute(sysfsOf(kernelNameOf(node)), 'loop/backing_file'), null);
  t.true((await readAt(path, MIB, 4096)).equals(data));
});

test('two disks and no hint are ambiguous, and neither is written', async (t) => {
  const [one, two] = [await attachLoop(t, 16 * MIB), await attachLoop(t, 16 * MIB)];
  const disks = (await listDisks({ includeLoop: true })).filter(({ path }) =>
    [one.path, two.path].includes(path),
  );
  const hashes = [await hashOf(one.path), await hashOf(two.path)];
  t.throws(() => selectDisk(disks, undefined, 'deploy'), { code: 'DISK_AMBIGUOUS' });
  t.deepEqual([await hashOf(one.path), await hashOf(two.path)], hashes);
});

test('loop devices are no disks unless asked for', async (t) => {
  const { path } = await attachLoop(t, 16 * MIB);
  const disk = (await listDisks()).find((one) => one.path === path);
  t.is(disk?.skipped, 'loop device');
});

for (const sectorSize of [512, 4096]) {
  test(`before the table exists, filesystem tools work on partition devices (${sectorSize}-byte sectors)`, async (t) => {
    const { path } = await attachLoop(t, 128 * MIB, { sectorSize });
    const image = await attachLoop(t, 32 * MIB, { sectorSize });
    await run('mkfs.ext4', ['-q', image.path]);
    const bytes = await readFile(image.path);

    await using claim = await claimDisk(await diskOf(path));
    const root = partition(1, 4 * MIB, 96 * MIB, { grow: true, contentSize: 32 * MIB });
    const swap = partition(2, 104 * MIB, 8 * MIB, { filesystem: 'swap' });
    const plan = planFor(claim.disk, { partitions: [root, swap] });
    await removeTable(claim);
    const nodes = await addPartitions(claim, plan);
    // the deploy writes through the whole disk
    await writeAt(path, [{ offset: 4 * MIB, bytes }]);
    const [rootNode = '', swapNode = ''] = [nodes.get('p1'), nodes.get('p2')];
    for (const node of [path, rootNode, swapNode]) await flushDevice(node);
    await driverFor('ext4')?.grow?.(rootNode, signal);
    const facts = { uuid: '0b8bd0c5-1a2f-4f5e-9c55-8b6d2c1e0f11', label: 'swap' };
    await driverFor('swap')?.recreate?.(swapNode, facts, signal);
    t.is((await readTable(path)).kind, 'none');

    await writeTable(claim, plan);
    await driverFor('ext4')?.check(`${path}p1`, signal);
    const { stdout } = await run('dumpe2fs', ['-h', `${path}p1`]);
    t.true(Number(/^Block count:\s+(\d+)/m.exec(stdout)?.[1]) * 1024 >= 24 * MIB);
    const { stdout: found } = await run('blkid', ['-p', '-o', 'value', '-s', 'UUID', `${path}p2`]);
    t.is(found.trim(), facts.uuid);
    const left = await run('losetup', ['--list', '--noheadings', '--output', 'BACK-FILE']);
    t.false(left.stdout.includes(`${path}\n`));
  });
}

test('unused ranges are discarded where the device can, and only those', async (t) => {
  const { path } = await attachLoop(t, 32 * MIB);
  const claim = await claimDisk(await diskOf(path));
  await writeAt(path, [{ offset: 0, bytes: randomBytes(32 * MIB) }]);
  const before = await readAt(path, 0, 32 * MIB);
  const result = await discardRanges(claim, [
    { start: 4 * MIB + 512, size: 4 * MIB },
    { start: 20 * MIB, size: 12 * MIB },
    { start: 100, size: 100 },
  ]);
  await flushDevice(path);
  const after = await readAt(path, 0, 32 * MIB);
  t.is(result.warning, null);
  t.true(result.discarded > 15 * MIB);
  t.true(after.subarray(20 * MIB).every((byte) => byte === 0));
  t.true(after.subarray(0, 4 * MIB + 512).equals(before.subarray(0, 4 * MIB + 512)));
  t.true(after.subarray(8 * MIB + 512, 20 * MIB).equals(before.subarray(8 * MIB + 512, 20 * MIB)));
  await t.throwsAsync(discardRanges(claim, [{ start: 32 * MIB, size: 1 }]), { code: 'INTERNAL' });
  await claim.release();
});

test('looking inside a filesystem changes nothing on its device', async (t) => {
  for (const [type, make] of [
    ['ext4', ['mkfs.ext4', '-q']],
    ['ntfs', ['mkntfs', '--quick', '--force']],
  ] as const) {
    const { path } = await attachLoop(t, 32 * MIB);
    const [tool = '', ...args] = make;
    await run(tool, [...args, path]);
    const folder = await mkdtemp(join(tmpdir(), 'fill-'));
    await run(type === 'ntfs' ? 'ntfs-3g' : 'mount', [path, folder]);
    await writeFile(join(folder, 'hostname'), 'lab-1\n');
    await run('umount', [folder]);
    await rm(folder, { recursive: true });
    await flushDevice(path);
    await run('blockdev', ['--setro', path]);
    const before = await hashOf(path);
    {
      await using mounted = await mountReadOnly(path, type);
      t.is(await readFile(join(mounted.path, 'hostname'), 'utf8'), 'lab-1\n');
      await t.throwsAsync(writeFile(join(mounted.path, 'x'), 'x'), { code: 'EROFS' });
    }
    t.is(await hashOf(path), before);
  }
  await t.throwsAsync(mountReadOnly('/dev/null', 'crypto_LUKS'), { code: 'TOOL_FAILED' });
});
