import { createHash, randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../../agent/process/run.ts';
import { layer } from '../../../initramfs/build/cache.ts';
import { root } from '../root.ts';
import { writeBootCode, writeGrubConfig } from '../system/bios-grub.ts';
import { configureSystem, SUMS_FOLDER } from '../system/configure.ts';
import { layOut, MIB, makeGptDisk, onRange } from '../system/gpt-disk.ts';
import { unpackTree } from '../system/tree.ts';

const uuids = {
  root: '6b0c5a3e-11d4-4a51-9a0c-7f2f7d1c0de5',
  swap: '0d1cf5c4-63aa-4f0e-8f44-2a7a5d1b2c3d',
} as const;
const DATA_FILES = 3000;
const layout = layOut({
  bios: { type: 'bios', size: MIB },
  esp: { type: 'esp', size: 64 * MIB, label: 'EFI' },
  swap: { type: 'swap', size: 128 * MIB },
  data: { type: 'data', size: 384 * MIB, label: 'Basic data partition' },
  root: { type: 'root', size: 1900 * MIB },
});
/** where the ext4 root lies: bytes from the start of the disk */
export const rootPartition = layout.partitions.root;
export const sourceDiskSize = layout.size;

/**
 * A disk as a machine has it: Debian 13 on GPT with ESP, swap, an NTFS data partition of thousands of
 * files and an ext4 root, that boots by BIOS, UEFI and Secure Boot. Made once, then a copy from the cache.
 */
export const makeSourceDisk = async (path: string, say: (line: string) => void): Promise<void> => {
  const cache = { root: join(root, 'out/cache'), log: () => undefined };
  const made = await layer(cache, 'demo-disk', await sources(), async (folder) => {
    say('making the source system (Debian 13 by mmdebstrap; once)');
    const work = await mkdtemp(join(tmpdir(), 'fog-system-'));
    try {
      await build(join(folder, 'disk.img'), work, say);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  });
  await run('cp', ['--sparse=always', join(made.folder, 'disk.img'), path], { timeoutMs: 300_000 });
};

const build = async (disk: string, work: string, say: (line: string) => void): Promise<void> => {
  const tree = join(work, 'tree');
  await unpackTree({
    folder: tree,
    packages: ['ntfs-3g', 'grub-efi-amd64-signed', 'shim-signed'],
    say,
  });
  await mkdir(join(tree, 'data'));
  await configureSystem({
    tree,
    files: {
      'etc/fstab': `UUID=${uuids.root} / ext4 errors=remount-ro 0 1\nUUID=${uuids.swap} none swap sw,nofail 0 0\nLABEL=Data /data ntfs-3g ro,nofail 0 0\n`,
    },
  });
  await writeGrubConfig({ tree, uuid: uuids.root, boot: '/boot', root: `UUID=${uuids.root}` });

  const { partitions } = layout;
  await makeGptDisk(disk, layout);
  await onRange(disk, partitions.esp, (node) => makeEsp(node, tree));
  await onRange(disk, partitions.swap, (node) => run('mkswap', ['-q', '-U', uuids.swap, '-L', 'swap', node]));
  const dataSums = await onRange(disk, partitions.data, (node) => makeData(node, work));
  await writeFile(join(tree, SUMS_FOLDER, 'data.b2'), dataSums);
  await onRange(disk, partitions.root, (node) =>
    run('mke2fs', ['-q', '-t', 'ext4', '-U', uuids.root, '-L', 'root', '-d', tree, node], {
      timeoutMs: 300_000,
    }),
  );
  const prefix = `(hd0,gpt${partitions.root.number})/boot/grub`;
  await writeBootCode({ disk, tree, biosPartition: partitions.bios.start, prefix });
};

const makeEsp = async (node: string, tree: string): Promise<void> => {
  await run('mkfs.vfat', ['-F', '32', '-n', 'ESP', '-i', '1a2b3c4d', node]);
  const stub = join(tree, '..', 'grub.cfg');
  await writeFile(
    stub,
    `search --no-floppy --fs-uuid --set=root ${uuids.root}\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n`,
  );
  const shim = join(tree, 'usr/lib/shim/shimx64.efi.signed');
  const grub = join(tree, 'usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed');
  await run('mmd', ['-i', node, '::/EFI', '::/EFI/BOOT', '::/EFI/debian']);
  for (const [from, to] of [
    [shim, 'EFI/debian/shimx64.efi'],
    [grub, 'EFI/debian/grubx64.efi'],
    [stub, 'EFI/debian/grub.cfg'],
    [shim, 'EFI/BOOT/BOOTX64.EFI'],
    [grub, 'EFI/BOOT/grubx64.efi'],
    [stub, 'EFI/BOOT/grub.cfg'],
  ] as const) {
    await run('mcopy', ['-i', node, from, `::/${to}`]);
  }
};

/** Thousands of small files and a few large ones; the list of their BLAKE2 sums. */
const makeData = async (node: string, work: string): Promise<string> => {
  await run('mkntfs', ['-F', '-Q', '-q', '-L', 'Data', '-p', '2048', '-H', '16', '-S', '63', node]);
  const mount = join(work, 'mnt');
  await mkdir(mount);
  await run('ntfs-3g', [node, mount]);
  const lines: string[] = [];
  try {
    for (let number = 0; number < DATA_FILES; number++) {
      const folder = `user${number % 20}`;
      if (number < 20) await mkdir(join(mount, folder));
      const name = `${folder}/file ${number}.txt`;
      const text =
        number % 500 === 0
          ? randomBytes(4 * MIB)
          : Buffer.from(`${'lorem ipsum '.repeat(number % 700)}${number}\n`);
      await writeFile(join(mount, name), text);
      lines.push(`${createHash('blake2b512').update(text).digest('hex')}  data/${name}`);
    }
  } finally {
    await run('umount', [mount], { timeoutMs: 120_000 });
  }
  return `${lines.join('\n')}\n`;
};

/** Text of everything that says what is on the disk. */
const sources = async (): Promise<string[]> => {
  const system = ['tree.ts', 'configure.ts', 'check.sh', 'gpt-disk.ts', 'bios-grub.ts'];
  const files = [import.meta.filename, ...system.map((name) => join(root, 'scripts/lib/system', name))];
  return await Promise.all(files.map((file) => readFile(file, 'utf8')));
};
