import { mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { zstdDecompressSync } from 'node:zlib';
import { run } from '../../agent/process/run.ts';

const MIB = 1024 * 1024;

/** A filesystem to put on a device, with files, and with space freed again that still holds old data. */
export interface FilesystemKind {
  name: string;
  /** as libblkid names it */
  type: string;
  /** partclone.<tool> */
  tool: string;
  size: number;
  make: (device: string) => Promise<void>;
}

/** Text only, so that a sector with anything else in it is the filesystem's own. */
const text = (name: string, bytes: number): string =>
  `${name}: ${bytes}\n`.repeat(Math.ceil(bytes / name.length)).slice(0, bytes);

const writeFiles = async (root: string): Promise<void> => {
  await mkdir(join(root, 'many'));
  for (let n = 0; n < 80; n += 1) {
    await writeFile(join(root, 'many', `file-${n}`), text(`file ${n}`, n * 301));
  }
  for (let n = 0; n < 5; n += 1) await writeFile(join(root, `large-${n}`), text(`large ${n}`, 300_000));
};

const removeSome = async (root: string): Promise<void> => {
  for (let n = 0; n < 80; n += 3) await rm(join(root, 'many', `file-${n}`));
  for (const n of [1, 3]) await rm(join(root, `large-${n}`));
  // fills the holes, in pieces
  await writeFile(join(root, 'pieces'), text('pieces', 400_000));
};

/** Files by the kernel's (or ntfs-3g's) own writer. */
const fillMounted = async (device: string, mount = ['mount']): Promise<void> => {
  const root = await mkdtemp(join(tmpdir(), 'fill-'));
  const [tool = '', ...args] = mount;
  await run(tool, [...args, device, root]);
  try {
    await writeFiles(root);
    await run('sync', ['-f', root]);
    await removeSome(root);
  } finally {
    await unmount(root);
    await rm(root, { recursive: true });
  }
};

/** Busy for a moment when another test of this process is starting a tool, which holds open files until its exec. */
const unmount = async (root: string): Promise<void> => {
  for (let attempt = 1; ; attempt += 1) {
    const { exitCode, stderr } = await run('umount', [root], { okExitCodes: [0, 32] });
    if (exitCode === 0) return;
    if (attempt === 10) throw new Error(stderr);
    await setTimeout(100 * attempt);
  }
};

/** The host has no driver for FAT: mtools is what is left. */
const fillFat = async (device: string): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), 'fill-'));
  try {
    await writeFiles(folder);
    await run('mcopy', ['-s', '-i', device, join(folder, 'many'), '::/']);
    for (let n = 0; n < 5; n += 1) await run('mcopy', ['-i', device, join(folder, `large-${n}`), '::/']);
    await run('mdel', ['-i', device, '::/large-1', '::/large-3', '::/many/file-1*', '::/many/file-4*']);
    await writeFile(join(folder, 'pieces'), text('pieces', 900_000));
    await run('mcopy', ['-i', device, join(folder, 'pieces'), '::/']);
  } finally {
    await rm(folder, { recursive: true });
  }
};

/**
 * exFAT and F2FS, made, filled and half emptied by Linux 6.12 (Debian 13) in a VM: no driver for them on
 * the host. Frames of pieces that are not zero: offset and length (64 bits each), then the bytes.
 */
export const restoreRecorded = async (name: string, device: string): Promise<void> => {
  const pieces = zstdDecompressSync(await readFile(`test/fixtures/filesystems/${name}.zst`));
  await using file = await open(device, 'r+');
  for (let at = 0; at < pieces.length; ) {
    const [offset, length] = [Number(pieces.readBigUInt64LE(at)), Number(pieces.readBigUInt64LE(at + 8))];
    await file.write(pieces, at + 16, length, offset);
    at += 16 + length;
  }
  await file.sync();
};

const LABEL = 'a, "b"';

const ext = (name: string, size: number, args: string[] = []): FilesystemKind => ({
  name: [name, ...args].join(' '),
  type: name,
  tool: 'extfs',
  size,
  make: async (device) => {
    await run(`mkfs.${name}`, ['-q', '-F', '-L', LABEL, ...args, device]);
    await fillMounted(device);
  },
});

const fat = (bits: string, size: number): FilesystemKind => ({
  name: `FAT${bits}`,
  type: 'vfat',
  tool: 'fat',
  size,
  make: async (device) => {
    await run('mkfs.vfat', ['-I', '-F', bits, '-n', "A & B'S", device]);
    await fillFat(device);
  },
});

const xfs = (...args: string[]): FilesystemKind => ({
  name: ['xfs', ...args].join(' '),
  type: 'xfs',
  tool: 'xfs',
  size: 300 * MIB,
  make: async (device) => {
    await run('mkfs.xfs', ['-q', '-f', '-L', LABEL, ...args, device]);
    await fillMounted(device);
  },
});

/** Kernels of today no longer mount version 4, but mkfs.xfs itself can write files. */
const makeOldXfs = async (device: string): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), 'fill-'));
  try {
    await writeFiles(folder);
    await removeSome(folder);
    const list = (names: string[], prefix: string): string[] =>
      names.map((name) => `${name} ---644 0 0 ${join(folder, prefix, name)}`);
    const many = list(await readdir(join(folder, 'many')), 'many');
    const large = list(['large-0', 'large-2', 'large-4', 'pieces'], '');
    const lines = ['/none', '0 0', 'd--755 0 0', 'many d--755 0 0', ...many, '$', ...large, '$', ''];
    await writeFile(join(folder, 'prototype'), lines.join('\n'));
    await run('mkfs.xfs', ['-q', '-f', '-m', 'crc=0', '-p', join(folder, 'prototype'), device]);
  } finally {
    await rm(folder, { recursive: true });
  }
};

/** With the defaults of the host's mkfs; what the sweep of mutations adds lacks checksums. */
export const kinds: readonly FilesystemKind[] = [
  ext('ext2', 24 * MIB),
  ext('ext3', 24 * MIB),
  ext('ext4', 24 * MIB),
  {
    name: 'ntfs',
    type: 'ntfs',
    tool: 'ntfs',
    size: 24 * MIB,
    make: async (device) => {
      await run('mkntfs', ['--quick', '--force', '--label', LABEL, device]);
      await fillMounted(device, ['ntfs-3g']);
    },
  },
  fat('12', 6 * MIB),
  fat('16', 24 * MIB),
  fat('32', 40 * MIB),
  {
    name: 'exfat',
    type: 'exfat',
    tool: 'exfat',
    size: 24 * MIB,
    make: async (device) => await restoreRecorded('exfat', device),
  },
  xfs(),
  {
    name: 'btrfs',
    type: 'btrfs',
    tool: 'btrfs',
    size: 160 * MIB,
    make: async (device) => {
      await run('mkfs.btrfs', ['-q', '-f', '-L', LABEL, device]);
      await fillMounted(device);
    },
  },
  {
    name: 'f2fs',
    type: 'f2fs',
    tool: 'f2fs',
    size: 120 * MIB,
    make: async (device) => await restoreRecorded('f2fs', device),
  },
];

/** The same without checksums over the metadata: a mutation is not found by those. */
export const unguardedKinds: readonly FilesystemKind[] = [
  ext('ext4', 24 * MIB, ['-O', '^metadata_csum']),
  {
    name: 'xfs 4',
    type: 'xfs',
    tool: 'xfs',
    size: 300 * MIB,
    make: async (device) => await makeOldXfs(device),
  },
];
