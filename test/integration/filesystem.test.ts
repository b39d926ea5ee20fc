import { createHash, randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { totalLength } from '../../agent/filesystem/extents.ts';
import { driverFor } from '../../agent/filesystem/index.ts';
import { probe } from '../../agent/filesystem/probe.ts';
import type { Extent } from '../../agent/image/extent.ts';
import { run } from '../../agent/process/run.ts';
import { attachLoop, hashOf, MIB } from './loop-device.ts';
import { withMount } from './with-mount.ts';

const { signal } = new AbortController();

interface Kind {
  name: string;
  type: string;
  make: (device: string) => Promise<unknown>;
  /** files put in, path -> content; small ones, large ones, and holes where some were deleted */
  fill: (t: ExecutionContext, device: string) => Promise<void>;
  /** path -> hash of every file */
  read: (t: ExecutionContext, device: string) => Promise<Record<string, string>>;
  sectorSize?: number;
  /** what mkfs asks for at least */
  size?: number;
}

const writeFiles = async (path: string): Promise<void> => {
  await mkdir(join(path, 'many'));
  for (let n = 0; n < 400; n++) await writeFile(join(path, 'many', `file-${n}`), randomBytes(n * 37));
  for (let n = 0; n < 6; n++) await writeFile(join(path, `large-${n}`), randomBytes(2 * MIB + n));
  // holes between what stays
  for (let n = 0; n < 400; n += 3) await rm(join(path, 'many', `file-${n}`));
  for (let n = 1; n < 6; n += 2) await rm(join(path, `large-${n}`));
};

const hashFiles = async (path: string): Promise<Record<string, string>> => {
  const hashes: Record<string, string> = {};
  for (const entry of await readdir(path, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = join(entry.parentPath, entry.name);
    hashes[relative(path, file)] = createHash('sha256')
      .update(await readFile(file))
      .digest('hex');
  }
  return hashes;
};

const ext = (name: string, args: string[] = [], sectorSize = 512): Kind => ({
  name,
  type: name.split(' ')[0] ?? name,
  sectorSize,
  make: (device) => run(`mkfs.${name.split(' ')[0]}`, ['-q', '-F', '-L', 'daten, "ü"', ...args, device]),
  fill: async (_t, device) => await withMount(['mount'], device, writeFiles),
  read: async (_t, device) => await withMount(['mount', '-o', 'ro'], device, hashFiles),
});

/** XFS and btrfs, which the kernel mounts as they are. */
const mounted = (type: string, size: number, args: string[], sectorSize = 512): Kind => ({
  name: [type, ...args].join(' '),
  type,
  size,
  sectorSize,
  make: (device) => run(`mkfs.${type}`, ['-q', '-f', '-L', 'a,b "ü"', ...args, device]),
  fill: async (_t, device) => await withMount(['mount'], device, writeFiles),
  read: async (_t, device) => await withMount(['mount', '-o', 'ro'], device, hashFiles),
});

const ntfs = (name: string, args: string[] = []): Kind => ({
  name,
  type: 'ntfs',
  make: (device) => run('mkntfs', ['--quick', '--force', '--label', 'Dätén 日本', ...args, device]),
  fill: async (_t, device) => await withMount(['ntfs-3g'], device, writeFiles),
  read: async (_t, device) => await withMount(['ntfs-3g', '-o', 'ro'], device, hashFiles),
});

const fat = (name: string, bits: string): Kind => ({
  name,
  type: 'vfat',
  make: (device) => run('mkfs.vfat', ['-I', '-F', bits, '-n', 'EFI', device]),
  fill: async (_t, device) => {
    const folder = await mkdtemp(join(tmpdir(), 'fill-'));
    try {
      await writeFiles(folder);
      await writeFile(join(folder, 'gone'), randomBytes(MIB));
      await run('mcopy', ['-s', '-i', device, join(folder, 'gone'), join(folder, 'many'), '::/']);
      await run('mcopy', ['-s', '-i', device, join(folder, 'large-0'), '::/']);
      await run('mdel', ['-i', device, '::/gone']);
    } finally {
      await rm(folder, { recursive: true });
    }
  },
  read: async (_t, device) => {
    const folder = await mkdtemp(join(tmpdir(), 'read-'));
    try {
      await run('mcopy', ['-s', '-n', '-i', device, '::/', folder]);
      return await hashFiles(folder);
    } finally {
      await rm(folder, { recursive: true });
    }
  },
});

const kinds: Kind[] = [
  ext('ext4'),
  ext('ext4 with 1 KiB blocks', ['-b', '1024']),
  ext('ext4 on 4096-byte sectors', [], 4096),
  ext('ext3'),
  ext('ext2'),
  ntfs('ntfs'),
  ntfs('ntfs with 64 KiB clusters', ['--cluster-size', '65536']),
  mounted('xfs', 300 * MIB, []),
  mounted('btrfs', 160 * MIB, []),
  ...(process.env['FOG_TEST_MATRIX']
    ? [
        mounted('xfs', 300 * MIB, ['-m', 'rmapbt=1', '-b', 'size=1024']),
        mounted('xfs', 300 * MIB, ['-s', 'size=4096'], 4096),
        mounted('btrfs', 160 * MIB, ['-m', 'single', '-M']),
        mounted('btrfs', 160 * MIB, ['-s', '4096', '-n', '4096'], 4096),
      ]
    : []),
  fat('FAT32', '32'),
  fat('FAT16', '16'),
  fat('FAT12', '12'),
];

const copyExtents = async (from: string, to: string, extents: readonly Extent[]): Promise<void> => {
  await using source = await open(from, 'r');
  await using target = await open(to, 'r+');
  for (const { offset, length } of extents) {
    for (let done = 0; done < length; ) {
      const block = Buffer.alloc(Math.min(MIB, length - done));
      const { bytesRead } = await source.read(block, 0, block.length, offset + done);
      await target.write(block, 0, bytesRead, offset + done);
      done += bytesRead;
    }
  }
  await target.sync();
};

for (const kind of kinds) {
  test(`${kind.name}: the used extents alone make a clean filesystem with the same files, and the source stays as it was`, async (t) => {
    const size = kind.size ?? 96 * MIB;
    const options = kind.sectorSize ? { sectorSize: kind.sectorSize } : {};
    const source = await attachLoop(t, size, options);
    await kind.make(source.path);
    await kind.fill(t, source.path);
    const files = await kind.read(t, source.path);
    t.true(Object.keys(files).length > 200);
    await run('blockdev', ['--flushbufs', source.path]);
    await run('blockdev', ['--setro', source.path]);
    const before = await hashOf(source.path);

    const found = await probe(source.path);
    t.is(found.type, kind.type);
    t.false(found.ambiguous);
    const driver = driverFor(found.type);
    if (!driver) throw new Error('no driver');
    await driver.check(source.path, signal);
    const { extents, minimumBytes } = await driver.usage(source.path, size, signal);
    t.is(await hashOf(source.path), before);

    t.true(totalLength(extents) < size * 0.9, 'free space is left out');
    // what has no resizer can go nowhere smaller
    if (['vfat', 'xfs'].includes(kind.type)) t.true((minimumBytes ?? 0) > size - MIB);
    else t.true((minimumBytes ?? 0) > MIB && (minimumBytes ?? 0) <= size);
    const copy = await attachLoop(t, size, options);
    await copyExtents(source.path, copy.path, extents);
    await driver.check(copy.path, signal);
    t.deepEqual(await kind.read(t, copy.path), files);
    t.deepEqual(await probe(copy.path), found);
  });
}

for (const [label, ...mkfs] of [
  [' a, "b", \\ü日', 'mkfs.ext4', '-q', '-F', '-L'],
  [" a, 'ü\\", 'mkfs.xfs', '-q', '-f', '-L'],
  [' a, "b", \\\'ü日 x=y; $(z) 😀', 'mkfs.btrfs', '-q', '-f', '-L'],
  [' a, "b", \\ü日; `x`', 'mkfs.f2fs', '-q', '-f', '-l'],
  [' a, "b", \\ü日 %s', 'mkntfs', '--quick', '--force', '--label'],
  // exfatprogs knows no other characters in the C locale, nor does FAT allow these
  [' a, "b"', 'mkfs.exfat', '-L'],
  ["A & B'S", 'mkfs.vfat', '-I', '-n'],
  [' a, "ü日"', 'mkswap', '--force', '-L'],
] as const) {
  test(`the label that ${mkfs[0]} was given is what probe returns: ${label}`, async (t) => {
    const { path } = await attachLoop(t, 300 * MIB);
    const [tool, ...args] = mkfs;
    await run(tool, [...args, label, path]);
    const found = await probe(path);
    t.is(found.label, label);
    t.not(found.uuid, '');
    t.false(found.ambiguous);
  });
}

test('NTFS: the backup boot sector behind the volume is in the map', async (t) => {
  const size = 64 * MIB;
  const { path } = await attachLoop(t, size);
  await run('mkntfs', ['--quick', '--force', path]);
  const usage = await driverFor('ntfs')?.usage(path, size, signal);
  const last = usage?.extents.at(-1);
  t.is((last?.offset ?? 0) + (last?.length ?? 0), size);
  const copy = await attachLoop(t, size);
  await copyExtents(path, copy.path, usage?.extents ?? []);
  const { stdout } = await run('ntfsfix', ['--no-action', copy.path]);
  t.regex(stdout, /Checking the alternate boot sector\.\.\. OK/);
});

test('a device with two signatures is ambiguous', async (t) => {
  const { path } = await attachLoop(t, 64 * MIB);
  await run('mkfs.ext4', ['-q', path]);
  // a squashfs begins where ext4 leaves room for a boot sector
  const folder = await mkdtemp(join(tmpdir(), 'squash-'));
  t.teardown(async () => await rm(folder, { recursive: true }));
  await run('mksquashfs', [import.meta.dirname, join(folder, 'image'), '-quiet', '-no-progress']);
  await copyExtents(join(folder, 'image'), path, [{ offset: 0, length: 512 }]);
  t.true((await probe(path)).ambiguous);
  // or it was FAT before
  const other = await attachLoop(t, 64 * MIB);
  await run('mkfs.vfat', ['-I', other.path]);
  await copyExtents(other.path, path, [{ offset: 0, length: 512 }]);
  t.true((await probe(path)).ambiguous);
});

test('nothing on a device is an empty type', async (t) => {
  const { path } = await attachLoop(t, 4 * MIB);
  t.deepEqual(await probe(path), { type: '', uuid: '', label: '', ambiguous: false });
});

test('ext4 that was not unmounted is refused as dirty and not written to', async (t) => {
  const size = 64 * MIB;
  const { path, file } = await attachLoop(t, size);
  await run('mkfs.ext4', ['-q', path]);
  // a copy of the disk taken while it is mounted is what a crash leaves behind
  const crashed = await attachLoop(t, size);
  await withMount(['mount'], path, async (folder) => {
    await writeFile(join(folder, 'a'), randomBytes(MIB));
    await run('sync', []);
    await copyExtents(file, crashed.path, [{ offset: 0, length: size }]);
  });
  const before = await hashOf(crashed.path);
  await t.throwsAsync(async () => await driverFor('ext4')?.check(crashed.path, signal), {
    code: 'FILESYSTEM_DIRTY',
  });
  t.is(await hashOf(crashed.path), before);
});

test('damaged ext4 is refused', async (t) => {
  const { path } = await attachLoop(t, 64 * MIB);
  await run('mkfs.ext4', ['-q', '-b', '4096', path]);
  await withMount(['mount'], path, writeFiles);
  // free blocks of the first group's bitmap
  const { stdout } = await run('dumpe2fs', [path]);
  const block = Number(/Block bitmap at (\d+)/.exec(stdout)?.[1]);
  await using file = await open(path, 'r+');
  await file.write(Buffer.alloc(512), 0, 512, block * 4096);
  await file.sync();
  const before = await hashOf(path);
  await t.throwsAsync(async () => await driverFor('ext4')?.check(path, signal), {
    code: 'FILESYSTEM_CHECK_FAILED',
  });
  t.is(await hashOf(path), before);
});

test('damaged FAT is refused, so that it is kept raw', async (t) => {
  const { path } = await attachLoop(t, 64 * MIB);
  const kind = fat('FAT32', '32');
  await kind.make(path);
  await kind.fill(t, path);
  // reserved sectors differ: read the boot sector for where the first FAT begins, and cross-link
  await using file = await open(path, 'r+');
  const { buffer } = await file.read(Buffer.alloc(512), 0, 512, 0);
  const fatStart = buffer.readUInt16LE(14) * buffer.readUInt16LE(11);
  const entries = Buffer.alloc(4 * 400, 7);
  await file.write(entries, 0, entries.length, fatStart + 40);
  await file.sync();
  const before = await hashOf(path);
  await t.throwsAsync(async () => await driverFor('vfat')?.check(path, signal), {
    code: 'FILESYSTEM_CHECK_FAILED',
  });
  t.is(await hashOf(path), before);
});

test('hibernated NTFS is refused with what to run in Windows', async (t) => {
  const { path } = await attachLoop(t, 64 * MIB);
  await run('mkntfs', ['--quick', '--force', path]);
  await withMount(['ntfs-3g'], path, async (folder) => {
    await writeFile(join(folder, 'hiberfil.sys'), Buffer.concat([Buffer.from('hibr'), Buffer.alloc(4092)]));
  });
  await run('blockdev', ['--flushbufs', path]);
  const before = await hashOf(path);
  const error = await t.throwsAsync(async () => await driverFor('ntfs')?.check(path, signal), {
    code: 'FILESYSTEM_DIRTY',
  });
  t.regex(error?.message ?? '', /shutdown \/s \/f \/t 0/);
  t.is(await hashOf(path), before);
});

test('NTFS that waits for chkdsk is refused with what to run in Windows', async (t) => {
  const { path } = await attachLoop(t, 64 * MIB);
  await run('mkntfs', ['--quick', '--force', path]);
  // ntfsresize marks what it has resized
  await run('ntfsresize', ['--force', '--force', '--size', '40M', path]);
  await run('blockdev', ['--flushbufs', path]);
  const before = await hashOf(path);
  const error = await t.throwsAsync(async () => await driverFor('ntfs')?.check(path, signal), {
    code: 'FILESYSTEM_DIRTY',
  });
  t.regex(error?.message ?? '', /chkdsk \/f/);
  t.is(await hashOf(path), before);
});

for (const kind of kinds.filter(({ type }) => driverFor(type)?.growable)) {
  test(`${kind.name}: grows to its device and keeps its files`, async (t) => {
    const options = kind.sectorSize ? { sectorSize: kind.sectorSize } : {};
    const size = kind.size ?? 64 * MIB;
    const { path, file } = await attachLoop(t, size, options);
    await kind.make(path);
    await kind.fill(t, path);
    const files = await kind.read(t, path);
    await using handle = await open(file, 'r+');
    await handle.truncate(size + 136 * MIB);
    await run('losetup', ['--set-capacity', path]);
    const driver = driverFor(kind.type);
    await driver?.grow?.(path, signal);
    // an interrupted deploy grows again
    await driver?.grow?.(path, signal);
    t.deepEqual(await kind.read(t, path), files);
    const bytes = await (sizeOf[kind.type] ?? sizeOf['ext'])?.(path);
    t.true((bytes ?? 0) > size + 133 * MIB && (bytes ?? 0) <= size + 136 * MIB, `${bytes} bytes`);
    await driver?.check(path, signal);
  });
}

/** What a filesystem's own tool calls its size. */
const sizeOf: Record<string, (device: string) => Promise<number>> = {
  ntfs: async (device) => {
    const { stdout } = await run('ntfsresize', ['--info', device]);
    return Number(/Current volume size: (\d+) bytes/.exec(stdout)?.[1]);
  },
  xfs: async (device) => {
    const { stdout } = await run('xfs_info', [device]);
    const [, blockSize, blocks] = /^data +=.*\bbsize=(\d+) +blocks=(\d+)/m.exec(stdout) ?? [];
    return Number(blockSize) * Number(blocks);
  },
  btrfs: async (device) => {
    const { stdout } = await run('btrfs', ['inspect-internal', 'dump-super', device]);
    return Number(/^total_bytes\s+(\d+)/m.exec(stdout)?.[1]);
  },
  ext: async (device) => {
    const { stdout } = await run('dumpe2fs', ['-h', device]);
    const number = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(stdout)?.[1]);
    return number('Block count') * number('Block size');
  },
};

test('a swap area is made anew with its UUID and label', async (t) => {
  const { path } = await attachLoop(t, 32 * MIB);
  const facts = { uuid: '0b8bd0c5-1a2f-4f5e-9c55-8b6d2c1e0f11', label: 'swäp 1' };
  await driverFor('swap')?.recreate?.(path, facts, signal);
  t.deepEqual(await probe(path), { type: 'swap', ...facts, ambiguous: false });
});

test('what is not a known filesystem has no driver', (t) => {
  for (const type of ['', 'zfs_member', 'crypto_LUKS', 'LVM2_member', 'swsuspend', 'BitLocker'])
    t.is(driverFor(type), null);
});
