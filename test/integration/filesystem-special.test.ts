import { randomBytes } from 'node:crypto';
import { copyFile, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { readAt } from '../../agent/disk/device-io.ts';
import { totalLength } from '../../agent/filesystem/extents.ts';
import { setFatHiddenSectors, setNtfsHiddenSectors } from '../../agent/filesystem/hidden-sectors.ts';
import { driverFor } from '../../agent/filesystem/index.ts';
import { probe } from '../../agent/filesystem/probe.ts';
import { run } from '../../agent/process/run.ts';
import { restoreRecorded } from './filesystem-kinds.ts';
import { attachLoop, hashOf, MIB } from './loop-device.ts';
import { withMount } from './with-mount.ts';

const { signal } = new AbortController();

const writeSynced = async (path: string, bytes: number): Promise<void> => {
  await using file = await open(path, 'w');
  await file.write(randomBytes(bytes));
  await file.sync();
};

/** A disk as a power cut leaves it: what it holds while its filesystem is mounted and has just been written. */
const crashed = async (t: ExecutionContext, type: string, size: number, force: string): Promise<string> => {
  const source = await attachLoop(t, size);
  const copy = await attachLoop(t, size);
  await run(`mkfs.${type}`, ['-q', force, source.path]);
  await withMount(['mount'], source.path, async (root) => {
    for (let n = 0; n < 20; n += 1) await writeFile(join(root, `file-${n}`), randomBytes(n * 1000));
    await run('sync', ['-f', root]);
    await writeSynced(join(root, 'file-7'), 300_000);
    await writeSynced(join(root, 'file-8'), 300_000);
    await copyFile(source.file, copy.file);
  });
  await run('blockdev', ['--flushbufs', copy.path]);
  return copy.path;
};

for (const [type, size, force] of [
  ['ext3', 64 * MIB, '-F'],
  ['ext4', 64 * MIB, '-F'],
  ['xfs', 300 * MIB, '-f'],
  ['btrfs', 160 * MIB, '-f'],
] as const) {
  test(`${type} after a power cut is dirty, not damaged; once its journal is replayed it is neither`, async (t) => {
    const device = await crashed(t, type, size, force);
    const driver = driverFor(type);
    const before = await hashOf(device);
    await t.throwsAsync(async () => await driver?.check(device, signal), { code: 'FILESYSTEM_DIRTY' });
    t.is(await hashOf(device), before);
    // the kernel replays it
    await withMount(['mount'], device, async () => {});
    await driver?.check(device, signal);
    const usage = await driver?.usage(device, size, signal);
    t.true(totalLength(usage?.extents ?? []) > 600_000);
  });
}

test('F2FS after a power cut is dirty: files synchronised behind its last checkpoint are in no map', async (t) => {
  const { path } = await attachLoop(t, 120 * MIB);
  await restoreRecorded('f2fs-crashed', path);
  const before = await hashOf(path);
  await t.throwsAsync(async () => await driverFor('f2fs')?.check(path, signal), { code: 'FILESYSTEM_DIRTY' });
  t.is(await hashOf(path), before);
});

test('F2FS with one damaged checkpoint is refused, though fsck.f2fs is content with the older one', async (t) => {
  const { path } = await attachLoop(t, 120 * MIB);
  await restoreRecorded('f2fs', path);
  await driverFor('f2fs')?.check(path, signal);
  await using file = await open(path, 'r+');
  await file.write(Buffer.alloc(64, 7), 0, 64, 512 * 4096 + 1000);
  await file.sync();
  const { exitCode } = await run('fsck.f2fs', ['--dry-run', path]);
  t.is(exitCode, 0);
  await t.throwsAsync(async () => await driverFor('f2fs')?.check(path, signal), {
    code: 'FILESYSTEM_CHECK_FAILED',
  });
});

test('exFAT: a dirty flag alone is no damage, a file whose cluster is marked free is', async (t) => {
  const size = 24 * MIB;
  const { path } = await attachLoop(t, size);
  await restoreRecorded('exfat', path);
  const driver = driverFor('exfat');
  const before = await driver?.usage(path, size, signal);
  await using file = await open(path, 'r+');
  await file.write(Buffer.of(2), 0, 1, 106);
  await file.sync();
  await driver?.check(path, signal);
  t.deepEqual(await driver?.usage(path, size, signal), before);
  // the allocation bitmap is what the heap begins with
  const bitmap = 4096 * 512;
  await file.write(Buffer.of(0), 0, 1, bitmap + 20);
  await file.sync();
  await t.throwsAsync(async () => await driver?.check(path, signal), { code: 'FILESYSTEM_CHECK_FAILED' });
});

/** Content of some recorded files, by inode number, from F2FS's own dumper. */
const dumpF2fs = async (t: ExecutionContext, device: string): Promise<Buffer[]> => {
  const folder = await mkdtemp(join(tmpdir(), 'dump-'));
  t.teardown(async () => await rm(folder, { recursive: true }));
  const files = [];
  for (const [inode, name] of [
    ['0x133', 'large-0'],
    ['0x13a', 'fragmented'],
    ['0x12a', 'file-292'],
  ] as const) {
    // it asks, and writes to ./lost_found
    await run('sh', ['-c', 'cd "$1" && yes | dump.f2fs -i "$2" "$3"', 'sh', folder, inode, device]);
    files.push(await readFile(join(folder, 'lost_found', name)));
  }
  return files;
};

test('F2FS grows to its device and keeps its files', async (t) => {
  const { path, file } = await attachLoop(t, 120 * MIB);
  await restoreRecorded('f2fs', path);
  const files = await dumpF2fs(t, path);
  t.true((files[0]?.length ?? 0) > 600_000);
  await using handle = await open(file, 'r+');
  await handle.truncate(300 * MIB);
  await run('losetup', ['--set-capacity', path]);
  const driver = driverFor('f2fs');
  await driver?.grow?.(path, signal);
  await driver?.grow?.(path, signal);
  t.deepEqual(await dumpF2fs(t, path), files);
  const { stdout } = await run('fsck.f2fs', ['--dry-run', path]);
  t.regex(stdout, /total FS sectors = 614400 \(300 MB\)/);
  t.notRegex(stdout, /\[Fail\]/);
});

test('NTFS is clean after it has grown: no check waits for Windows, the backup boot sector is at the end', async (t) => {
  const { path, file } = await attachLoop(t, 64 * MIB);
  await run('mkntfs', ['--quick', '--force', path]);
  await using handle = await open(file, 'r+');
  // not a whole number of clusters
  const size = 200 * MIB + 3 * 512;
  await handle.truncate(size);
  await run('losetup', ['--set-capacity', path]);
  await driverFor('ntfs')?.grow?.(path, signal);
  t.regex((await run('ntfsinfo', ['--mft', path])).stdout, /Volume Flags: 0x0000/);
  t.true((await readAt(path, size - 512, 512)).equals(await readAt(path, 0, 512)));
  t.regex((await run('ntfsfix', ['--no-action', path])).stdout, /alternate boot sector\.\.\. OK/);
  await driverFor('ntfs')?.check(path, signal);
});

test('NTFS: hidden sectors are set in the boot sector and its copy, and nowhere else', async (t) => {
  const { path } = await attachLoop(t, 64 * MIB);
  await run('mkntfs', ['--quick', '--force', path]);
  const before = await readAt(path, 0, 64 * MIB);
  await setNtfsHiddenSectors(path, 206848, signal);
  const after = await readAt(path, 0, 64 * MIB);
  for (const at of [0x1c, 64 * MIB - 512 + 0x1c]) {
    t.is(after.readUInt32LE(at), 206848);
    before.copy(after, at, at, at + 4);
  }
  t.true(after.equals(before));
  // a start that the field cannot hold leaves it alone
  await setNtfsHiddenSectors(path, 2 ** 32, signal);
  t.is((await readAt(path, 0, 512)).readUInt32LE(0x1c), 206848);
  await driverFor('ntfs')?.check(path, signal);
});

test('FAT: hidden sectors are set, on FAT32 in the backup too; what is no FAT is not written', async (t) => {
  for (const bits of ['16', '32']) {
    const { path } = await attachLoop(t, 64 * MIB);
    await run('mkfs.vfat', ['-I', '-F', bits, path]);
    await setFatHiddenSectors(path, 2048, signal);
    const boot = await readAt(path, 0, 4096);
    t.is(boot.readUInt32LE(0x1c), 2048);
    if (bits === '32') t.is(boot.readUInt32LE(6 * 512 + 0x1c), 2048);
    await driverFor('vfat')?.check(path, signal);
  }
  const { path } = await attachLoop(t, 4 * MIB);
  const before = await hashOf(path);
  await t.throwsAsync(setFatHiddenSectors(path, 2048, signal), { code: 'FILESYSTEM_CHECK_FAILED' });
  await t.throwsAsync(setNtfsHiddenSectors(path, 2048, signal), { code: 'FILESYSTEM_CHECK_FAILED' });
  t.is(await hashOf(path), before);
});

test('btrfs on two devices, a seed, and ext with what partclone does not know are not captured by blocks', async (t) => {
  const [one, two] = [await attachLoop(t, 160 * MIB), await attachLoop(t, 160 * MIB)];
  await run('mkfs.btrfs', ['-q', '-f', one.path, two.path]);
  const refused = async (type: string, device: string): Promise<void> => {
    const driver = driverFor(type);
    await t.throwsAsync(
      async () => {
        await driver?.check(device, signal);
        await driver?.usage(device, 160 * MIB, signal);
      },
      { code: 'TOOL_FAILED' },
    );
  };
  await refused('btrfs', one.path);
  await run('btrfs', ['device', 'scan', '--forget', one.path]);
  await run('btrfs', ['device', 'scan', '--forget', two.path]);
  await run('mkfs.btrfs', ['-q', '-f', one.path]);
  await run('btrfstune', ['-S', '1', one.path]);
  await refused('btrfs', one.path);
  await run('mkfs.ext4', ['-q', '-F', '-O', 'bigalloc', one.path]);
  await refused('ext4', one.path);
  await run('mkfs.ext4', ['-q', '-F', '-b', '4096', '-O', 'journal_dev', two.path]);
  t.is(driverFor((await probe(two.path)).type), null);
  await run('mkfs.ext4', ['-q', '-F', '-b', '4096', '-J', `device=${two.path}`, one.path]);
  await refused('ext4', one.path);
});

test('XFS with its log or a realtime section on another device is not captured by blocks', async (t) => {
  const [one, two] = [await attachLoop(t, 300 * MIB), await attachLoop(t, 100 * MIB)];
  for (const args of [
    ['-l', `logdev=${two.path}`],
    ['-r', `rtdev=${two.path}`],
  ]) {
    await run('mkfs.xfs', ['-q', '-f', ...args, one.path]);
    await t.throwsAsync(async () => await driverFor('xfs')?.check(one.path, signal), { code: 'TOOL_FAILED' });
  }
});

/** A restart page of $LogFile with a client that has not logged out: what Windows leaves after a power cut. */
const restartPage = (): Buffer => {
  const page = Buffer.alloc(4096);
  page.write('RSTR', 0, 'latin1');
  // update sequence array of 9 words at 30, the area at 48
  page.writeUInt16LE(30, 4);
  page.writeUInt16LE(9, 6);
  page.writeUInt32LE(4096, 16);
  page.writeUInt32LE(4096, 20);
  page.writeUInt16LE(48, 24);
  page.writeInt16LE(1, 26);
  page.writeInt16LE(1, 28);
  const area = 48;
  page.writeUInt16LE(1, area + 8);
  page.writeUInt16LE(0xffff, area + 10);
  page.writeUInt16LE(0, area + 12);
  page.writeUInt32LE(67 - 22, area + 16);
  page.writeUInt16LE(48 + 160, area + 20);
  page.writeUInt16LE(48, area + 22);
  page.writeBigInt64LE(2n * BigInt(MIB), area + 24);
  page.writeUInt16LE(0x30, area + 36);
  page.writeUInt16LE(0x40, area + 38);
  const client = area + 48;
  page.writeUInt16LE(0xffff, client + 16);
  page.writeUInt16LE(0xffff, client + 18);
  page.writeUInt32LE(8, client + 28);
  page.write('NTFS', client + 32, 'utf16le');
  // fix-ups: the number 1 at the end of each sector, what stood there in the array
  page.writeUInt16LE(1, 30);
  for (let sector = 1; sector <= 8; sector += 1) page.writeUInt16LE(1, sector * 512 - 2);
  return page;
};

test('NTFS with an unfinished log is refused as dirty, with what to run in Windows', async (t) => {
  const { path } = await attachLoop(t, 64 * MIB);
  await run('mkntfs', ['--quick', '--force', path]);
  // $LogFile, as mkntfs leaves it, is all ones: the first such page
  const bytes = await readAt(path, 0, 64 * MIB);
  const log = bytes.indexOf(Buffer.alloc(8192, 0xff));
  t.true(log > 0 && log % 4096 === 0);
  await using file = await open(path, 'r+');
  const page = restartPage();
  for (const at of [log, log + 4096]) await file.write(page, 0, page.length, at);
  await file.sync();
  const before = await hashOf(path);
  const error = await t.throwsAsync(async () => await driverFor('ntfs')?.check(path, signal), {
    code: 'FILESYSTEM_DIRTY',
  });
  t.regex(error?.message ?? '', /chkdsk \/f/);
  t.is(await hashOf(path), before);
});
