import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../../agent/process/run.ts';
import { writeBootCode, writeGrubConfig } from '../../../scripts/lib/system/bios-grub.ts';
import { configureSystem, SUMS_FOLDER } from '../../../scripts/lib/system/configure.ts';
import { type Layout, layOut, MIB, makeGptDisk, onRange } from '../../../scripts/lib/system/gpt-disk.ts';
import { unpackTree } from '../../../scripts/lib/system/tree.ts';
import { lvm, placesOf } from '../../integration/lvm.ts';
import { encryptInto } from './luks-format.ts';

export interface RootDisk {
  file: string;
  /** bytes of the disk */
  size: number;
}

export interface LuksDisk extends RootDisk {
  passphrase: string;
}

const uuids = {
  boot: '52a0b1b5-9e2f-4a34-9a52-0c5f0f6d3a11',
  root: 'a7a4dc1e-3a3c-4f8b-8a86-5a0f8a7d1c22',
  swap: 'c3a1f6de-7d0e-4c55-b1c4-2f9c6f0e7b33',
  luks: 'e1d7c2a9-5b44-4d0c-9d3b-6a1e0c9f8d44',
} as const;
const ROOT = '/dev/mapper/golden-root';
const SWAP_BYTES = 128 * MIB;
const GROUP_BYTES = 1200 * MIB;
/** LUKS 2 keeps 16 MiB for itself */
const LUKS_HEADER = 16 * MIB;

/** Debian's guided partitioning with LVM: /boot, and a physical volume with root and swap of group `golden`. */
export const makeLvmDisk = async (folder: string): Promise<RootDisk> => {
  const layout = layOut({
    bios: { type: 'bios', size: MIB },
    boot: { type: 'linux', size: 256 * MIB },
    lvm: { type: 'lvm', size: GROUP_BYTES },
  });
  return await withBoot(folder, 'lvm', layout, {}, async (file, tree) => {
    await onRange(file, layout.partitions.lvm, (node) => makeGroup(node, tree));
  });
};

/** Debian's guided partitioning with encrypted LVM: /boot, and LUKS 2 with the physical volume inside. */
export const makeLuksDisk = async (folder: string): Promise<LuksDisk> => {
  const layout = layOut({
    bios: { type: 'bios', size: MIB },
    boot: { type: 'linux', size: 256 * MIB },
    luks: { type: 'luks', size: LUKS_HEADER + GROUP_BYTES },
  });
  const passphrase = 'correct horse, battery';
  // `initramfs`: it is needed at boot, which update-initramfs cannot see from another machine's chroot
  const crypttab = `golden_crypt UUID=${uuids.luks} none luks,discard,initramfs\n`;
  const disk = await withBoot(folder, 'luks', layout, { 'etc/crypttab': crypttab }, async (file, tree) => {
    const clear = `${file}.clear`;
    await run('truncate', ['-s', String(GROUP_BYTES), clear]);
    await onRange(clear, { start: 0, size: GROUP_BYTES }, (node) => makeGroup(node, tree));
    await onRange(file, layout.partitions.luks, (node) =>
      encryptInto(node, { clear, passphrase, uuid: uuids.luks }),
    );
    await rm(clear);
  });
  return { ...disk, passphrase };
};

/**
 * A disk of 40 GB: swap, and an ext4 root of all the rest, which holds `bytes` of files that do not compress,
 * all over it, beside the system. The system checks their sums at each start.
 */
export const makeLargeDisk = async (folder: string, bytes: number): Promise<RootDisk> => {
  const swap = 512 * MIB;
  const layout = layOut({
    bios: { type: 'bios', size: MIB },
    swap: { type: 'swap', size: swap },
    root: { type: 'root', size: Math.floor(40e9 / MIB - 3) * MIB - swap },
  });
  const { bios, root, swap: swapPlace } = layout.partitions;
  const place = `UUID=${uuids.root}`;
  const tree = await newTree(folder, 'large');
  await configureSystem({
    tree,
    files: { 'etc/fstab': `${place} / ext4 errors=remount-ro 0 1\nUUID=${uuids.swap} none swap sw 0 0\n` },
  });
  await writeGrubConfig({ tree, uuid: uuids.root, boot: '/boot', root: place });
  const file = join(folder, 'large.img');
  await makeGptDisk(file, layout);
  await onRange(file, swapPlace, (node) => run('mkswap', ['-q', '-U', uuids.swap, node]));
  await onRange(file, root, async (node) => {
    await makeExt4(node, uuids.root, tree);
    await fill(node, join(folder, 'large.mount'), bytes);
  });
  const prefix = `(hd0,gpt${root.number})/boot/grub`;
  await writeBootCode({ disk: file, tree, biosPartition: bios.start, prefix });
  await rm(tree, { recursive: true });
  return { file, size: layout.size };
};

/** A disk whose /boot is an ext4 of its own and whose root and swap are logical volumes; `fill` makes these. */
const withBoot = async (
  folder: string,
  name: string,
  layout: Layout<'bios' | 'boot'>,
  files: Readonly<Record<string, string>>,
  fillRoot: (file: string, tree: string) => Promise<void>,
): Promise<RootDisk> => {
  const { bios, boot } = layout.partitions;
  const tree = await newTree(folder, name);
  const fstab = [
    `${ROOT} / ext4 errors=remount-ro 0 1`,
    `UUID=${uuids.boot} /boot ext4 defaults 0 2`,
    '/dev/mapper/golden-swap none swap sw 0 0',
    '',
  ].join('\n');
  await configureSystem({ tree, initramfs: true, files: { 'etc/fstab': fstab, ...files } });
  await writeGrubConfig({ tree, uuid: uuids.boot, boot: '', root: ROOT });
  const file = join(folder, `${name}.img`);
  await makeGptDisk(file, layout);
  const prefix = `(hd0,gpt${boot.number})/grub`;
  await writeBootCode({ disk: file, tree, biosPartition: bios.start, prefix });
  const bootTree = `${tree}.boot`;
  await rename(join(tree, 'boot'), bootTree);
  await mkdir(join(tree, 'boot'));
  await onRange(file, boot, (node) => makeExt4(node, uuids.boot, bootTree));
  await fillRoot(file, tree);
  for (const path of [tree, bootTree]) await rm(path, { recursive: true });
  return { file, size: layout.size };
};

/** One list of packages for all of them: installing takes minutes. */
const newTree = async (folder: string, name: string): Promise<string> => {
  const tree = join(folder, `${name}.tree`);
  const packages = ['lvm2', 'cryptsetup-initramfs'];
  await unpackTree({ folder: tree, packages, say: () => undefined });
  return tree;
};

const makeExt4 = async (node: string, uuid: string, tree: string): Promise<void> => {
  await run('mke2fs', ['-q', '-t', 'ext4', '-U', uuid, '-d', tree, node], { timeoutMs: 300_000 });
};

/** Group `golden` with root and swap, in this order, and a little room, as the installer leaves it. */
const makeGroup = async (node: string, tree: string): Promise<void> => {
  const create = ['-q', '-an', '-Zn', '-Wn'];
  const rootBytes = GROUP_BYTES - SWAP_BYTES - 32 * MIB;
  await lvm([node], 'pvcreate', ['-q', node]);
  await lvm([node], 'vgcreate', ['-q', 'golden', node]);
  await lvm([node], 'lvcreate', [...create, '-n', 'root', '-L', `${rootBytes}b`, 'golden']);
  await lvm([node], 'lvcreate', [...create, '-n', 'swap', '-L', `${SWAP_BYTES}b`, 'golden']);
  await run('blockdev', ['--flushbufs', node]);
  const places = await placesOf([node]);
  // this kernel may have no device-mapper: the volumes are ranges, in one piece each
  const onVolume = async (name: string, work: (volume: string) => Promise<unknown>): Promise<void> => {
    const [piece, ...others] = places.get(name) ?? [];
    if (!piece || others.length > 0) throw new Error(`${name} does not lie in one piece`);
    await onRange(node, { start: piece.offset, size: piece.length }, work);
  };
  await onVolume('root', (volume) => makeExt4(volume, uuids.root, tree));
  await onVolume('swap', (volume) => run('mkswap', ['-q', '-U', uuids.swap, volume]));
};

const FOLDERS = 20;

/** By the kernel, in folders that ext4 spreads over its block groups (`chattr +T`: as it does with /home/*). */
const fill = async (node: string, mount: string, bytes: number): Promise<void> => {
  await mkdir(mount);
  await run('mount', [node, mount]);
  try {
    const write = [
      'cd "$1" && chattr +T srv',
      'for n in $(seq "$2"); do mkdir "srv/$n" && head -c "$3" /dev/urandom >"srv/$n/file"; done',
      'b2sum srv/*/file >"$4"',
    ].join(' && ');
    const each = String(Math.ceil(bytes / FOLDERS));
    const list = join(SUMS_FOLDER, 'srv.b2');
    await run('sh', ['-c', write, 'sh', mount, String(FOLDERS), each, list], { timeoutMs: 300_000 });
  } finally {
    await run('umount', [mount], { timeoutMs: 300_000 });
  }
};
