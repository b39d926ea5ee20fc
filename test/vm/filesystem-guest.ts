// Runs inside the initramfs in place of the agent: the drivers with the tools that ship, on filesystems that
// the shipped kernel wrote. Prints facts as JSON lines; filesystem.test.ts says what they must be.
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { flushDevice } from '../../agent/disk/device-io.ts';
import { mountReadOnly } from '../../agent/disk/mount.ts';
import { toImagingError } from '../../agent/errors.ts';
import { totalLength, uniteExtents } from '../../agent/filesystem/extents.ts';
import { driverFor } from '../../agent/filesystem/index.ts';
import { partcloneMap } from '../../agent/filesystem/partclone-map.ts';
import { probe } from '../../agent/filesystem/probe.ts';
import type { Extent } from '../../agent/image/extent.ts';
import { power } from '../../agent/machine/power.ts';
import { run } from '../../agent/process/run.ts';

const MIB = 1024 * 1024;
/** the disk, and what mkfs sees of it: the rest is for growing */
const DISK = '/dev/vda';
const COPY = '/dev/vdb';
const SIZE = 360 * MIB;
const { signal } = new AbortController();

const LABEL = 'a, "b" \\ü';

const kinds: [name: string, type: string, tool: string, mount: string, make: string[], size?: number][] = [
  ['ext4', 'ext4', 'extfs', 'ext4', ['mkfs.ext4', '-q', '-F', '-L', LABEL]],
  ['ntfs', 'ntfs', 'ntfs', 'ntfs3', ['mkntfs', '--quick', '--force', '--label', LABEL]],
  ['FAT12', 'vfat', 'fat', 'vfat', ['mkfs.vfat', '-F', '12'], 12 * MIB],
  ['FAT16', 'vfat', 'fat', 'vfat', ['mkfs.vfat', '-F', '16']],
  ['FAT32', 'vfat', 'fat', 'vfat', ['mkfs.vfat', '-F', '32']],
  ['exfat', 'exfat', 'exfat', 'exfat', ['mkfs.exfat', '-L', 'a, "b"']],
  ['xfs', 'xfs', 'xfs', 'xfs', ['mkfs.xfs', '-q', '-f', '-L', 'a, "b" \\ü']],
  ['btrfs', 'btrfs', 'btrfs', 'btrfs', ['mkfs.btrfs', '-q', '-f', '-L', LABEL]],
  [
    'btrfs with a block group tree',
    'btrfs',
    'btrfs',
    'btrfs',
    ['mkfs.btrfs', '-q', '-f', '-O', 'block-group-tree'],
  ],
  ['f2fs', 'f2fs', 'f2fs', 'f2fs', ['mkfs.f2fs', '-q', '-f', '-l', LABEL]],
];

const fact = (name: string, value: unknown): void => {
  console.log(`FACT ${JSON.stringify({ name, value })}`);
};

const fill = async (root: string): Promise<void> => {
  await mkdir(join(root, 'many'));
  const text = (n: number, bytes: number): string => `${n}: ü日😀\n`.repeat(bytes / 10).slice(0, bytes);
  for (let n = 0; n < 60; n += 1) await writeFile(join(root, 'many', `ü ${n}, 日😀`), text(n, n * 501));
  for (let n = 0; n < 5; n += 1) await writeFile(join(root, `large-${n}`), text(n, 300_000));
  await run('sync', ['-f', root]);
  for (let n = 0; n < 60; n += 3) await rm(join(root, 'many', `ü ${n}, 日😀`));
  for (const n of [1, 3]) await rm(join(root, `large-${n}`));
  await writeFile(join(root, 'pieces'), text(9, 700_000));
  // blocks that are promised and never written, where the filesystem knows such
  await writeFile(join(root, 'promised'), 'x');
  await run('fallocate', ['--length', '3M', join(root, 'promised')], { okExitCodes: [0, 1] });
};

const filesOf = async (device: string, type: string): Promise<Record<string, string>> => {
  await using mount = await mountReadOnly(device, type);
  const hashes: Record<string, string> = {};
  for (const entry of await readdir(mount.path, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = join(entry.parentPath, entry.name);
    const hash = createHash('sha256').update(await readFile(file));
    hashes[relative(mount.path, file)] = hash.digest('hex');
  }
  return hashes;
};

const copyExtents = async (extents: readonly Extent[]): Promise<void> => {
  await using source = await open(DISK, 'r');
  await using target = await open(COPY, 'r+');
  for (const { offset, length } of extents) {
    for (let done = 0; done < length; done += MIB) {
      const block = Buffer.alloc(Math.min(MIB, length - done));
      await source.read(block, 0, block.length, offset + done);
      await target.write(block, 0, block.length, offset + done);
    }
  }
  await target.sync();
};

const look = async ([
  name,
  type,
  tool,
  mountType,
  [mkfs = '', ...args],
  size = SIZE,
]: (typeof kinds)[number]) => {
  for (const device of [DISK, COPY]) await run('wipefs', ['--all', '--force', device]);
  const { stdout } = await run('losetup', ['--find', '--show', '--sizelimit', String(size), DISK]);
  const device = stdout.trim();
  try {
    await run(mkfs, [...args, device]);
    const root = await mkdtemp('/tmp/fill-');
    const utf8 = { vfat: 'utf8', exfat: 'iocharset=utf8', ntfs3: 'iocharset=utf8' }[mountType];
    await run('mount', ['-t', mountType, ...(utf8 ? ['-o', utf8] : []), device, root]);
    await fill(root);
    await run('umount', [root]);
    await flushDevice(device);
    const driver = driverFor(type);
    const found = await probe(device);
    const files = await filesOf(device, type);
    await driver?.check(device, signal);
    const usage = await driver?.usage(device, size, signal);
    const extents = usage?.extents ?? [];
    const alone = await partcloneMap(tool, device, size, signal, { countsMore: true });
    const lacks =
      totalLength(uniteExtents([...alone.extents, ...extents], size)) - totalLength(alone.extents);
    await run('losetup', ['--detach', device]);
    await flushDevice(DISK);
    await copyExtents(extents);
    await flushDevice(COPY);
    const copied = await filesOf(COPY, type);
    if (driver?.grow) await driver.grow(COPY, signal);
    else await driver?.check(COPY, signal);
    const grown = await filesOf(COPY, type);
    fact(name, {
      label: found.label,
      used: totalLength(extents),
      minimum: usage?.minimumBytes,
      lacks,
      files: Object.keys(files).length,
      same:
        JSON.stringify(copied) === JSON.stringify(files) && JSON.stringify(grown) === JSON.stringify(files),
    });
  } catch (thrown) {
    const error = toImagingError(thrown);
    fact(name, { error: error.code, message: error.message, details: error.details });
    await run('losetup', ['--detach', device], { okExitCodes: [0, 1] });
  }
};

for (const device of [DISK, COPY]) await run('blockdev', ['--setrw', device]);
for (const kind of kinds) await look(kind);
await power('poweroff');
