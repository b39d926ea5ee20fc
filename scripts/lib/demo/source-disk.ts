import { createHash, randomBytes } from 'node:crypto';
import { chmod, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../../agent/process/run.ts';
import { root } from '../root.ts';
import { writeBootCode } from './bios-grub.ts';

const MIB = 1024 * 1024;
const sizes = { esp: 64 * MIB, swap: 128 * MIB, data: 384 * MIB, root: 1900 * MIB } as const;
const uuids = {
  root: '6b0c5a3e-11d4-4a51-9a0c-7f2f7d1c0de5',
  swap: '0d1cf5c4-63aa-4f0e-8f44-2a7a5d1b2c3d',
} as const;
const DATA_FILES = 3000;
/** first byte of each partition; 1 MiB alignment, as every installer of today */
const starts = layout();
/** where the ext4 root lies: bytes from the start of the disk */
export const rootPartition = { start: starts.root, size: sizes.root };
export const sourceDiskSize = starts.end + MIB;

const packages = [
  'linux-image-cloud-amd64',
  'systemd-sysv',
  'dbus',
  'udev',
  'initramfs-tools',
  'ntfs-3g',
  'grub-pc-bin',
  'grub-common',
  'grub-efi-amd64-signed',
  'shim-signed',
];

/**
 * A disk as a machine has it: Debian 13 on GPT with ESP, swap, an NTFS data partition of thousands of
 * files and an ext4 root, that boots by BIOS, UEFI and Secure Boot. Made once, then a copy from the cache.
 */
export const makeSourceDisk = async (path: string, say: (line: string) => void): Promise<void> => {
  const cache = join(root, 'out/cache/demo', `source-${await inputsHash()}.img`);
  if (!(await exists(cache))) {
    say('making the source system (Debian 13 by mmdebstrap; once)');
    await mkdir(join(root, 'out/cache/demo'), { recursive: true });
    const work = `${cache}.work`;
    await rm(work, { recursive: true, force: true });
    await mkdir(work, { recursive: true });
    try {
      await build(work);
      await rename(join(work, 'disk.img'), cache);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }
  await run('cp', ['--sparse=always', cache, path], { timeoutMs: 300_000 });
};

function layout(): { bios: number; esp: number; swap: number; data: number; root: number; end: number } {
  const bios = MIB;
  const esp = bios + MIB;
  const swap = esp + sizes.esp;
  const data = swap + sizes.swap;
  const rootAt = data + sizes.data;
  return { bios, esp, swap, data, root: rootAt, end: rootAt + sizes.root };
}

const build = async (work: string): Promise<void> => {
  const tree = join(work, 'tree');
  await run(
    'mmdebstrap',
    [
      '--variant=minbase',
      '--quiet',
      `--include=${packages.join(',')}`,
      '--dpkgopt=path-exclude=/usr/share/doc/*',
      '--dpkgopt=path-exclude=/usr/share/locale/*',
      '--dpkgopt=path-exclude=/usr/share/man/*',
      'trixie',
      tree,
    ],
    { timeoutMs: 900_000 },
  );
  await configure(tree);

  const disk = join(work, 'disk.img');
  await run('truncate', ['-s', String(sourceDiskSize), disk]);
  await run('sfdisk', ['--quiet', disk], { input: table() });
  const { kernel } = await kernelOf(tree);
  const parts = {
    esp: join(work, 'esp'),
    swap: join(work, 'swap'),
    data: join(work, 'data'),
    root: join(work, 'root'),
  };
  for (const [name, file] of Object.entries(parts)) {
    await run('truncate', ['-s', String(sizes[name as keyof typeof sizes]), file]);
  }
  await makeEsp(parts.esp, tree);
  await run('mkswap', ['-q', '-U', uuids.swap, '-L', 'swap', parts.swap]);
  const dataHashes = await makeData(parts.data, work);
  await writeFile(join(tree, 'var/lib/fog-demo/data.b2'), dataHashes);
  await mkdir(join(tree, 'boot/grub'), { recursive: true });
  await writeFile(join(tree, 'boot/grub/grub.cfg'), grubConfig(kernel));
  await run('mke2fs', ['-q', '-t', 'ext4', '-U', uuids.root, '-L', 'root', '-d', tree, parts.root], {
    timeoutMs: 300_000,
  });
  for (const [name, file] of Object.entries(parts)) {
    const start = starts[name as keyof typeof sizes];
    await run(
      'dd',
      [`if=${file}`, `of=${disk}`, 'bs=1M', `seek=${start / MIB}`, 'conv=sparse,notrunc', 'status=none'],
      { timeoutMs: 300_000 },
    );
  }
  await writeBootCode({ disk, tree, biosPartition: starts.bios, rootPartition: 5 });
};

const table = (): string =>
  [
    'label: gpt',
    'first-lba: 34',
    ...(
      [
        ['bios', MIB, '21686148-6449-6E6F-744E-656564454649', 'bios'],
        ['esp', sizes.esp, 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B', 'EFI'],
        ['swap', sizes.swap, '0657FD6D-A4AB-43C4-84E5-0933C84B4F4F', 'swap'],
        ['data', sizes.data, 'EBD0A0A2-B9E5-4433-87C0-68B6B72699C7', 'Basic data partition'],
        ['root', sizes.root, '4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709', 'root'],
      ] as const
    ).map(
      ([name, size, type, label]) =>
        `start=${starts[name] / 512}, size=${size / 512}, type=${type}, name="${label}"`,
    ),
    '',
  ].join('\n');

const configure = async (tree: string): Promise<void> => {
  const put = async (path: string, text: string, mode = 0o644): Promise<void> => {
    const file = join(tree, path);
    await mkdir(join(file, '..'), { recursive: true });
    await writeFile(file, text);
    await chmod(file, mode);
  };
  await put('etc/hostname', 'golden\n');
  await put(
    'etc/fstab',
    `UUID=${uuids.root} / ext4 errors=remount-ro 0 1\nUUID=${uuids.swap} none swap sw,nofail 0 0\nLABEL=Data /data ntfs-3g ro,nofail 0 0\n`,
  );
  await mkdir(join(tree, 'data'), { recursive: true });
  await put(
    'usr/local/sbin/fog-demo-check',
    await readFile(join(root, 'scripts/lib/demo/check.sh'), 'utf8'),
    0o755,
  );
  await put(
    'etc/systemd/system/fog-demo-check.service',
    '[Unit]\nDescription=Say on the serial console what this system is\nAfter=multi-user.target local-fs.target\n[Service]\nType=oneshot\nExecStart=/usr/local/sbin/fog-demo-check\n[Install]\nWantedBy=graphical.target multi-user.target\n',
  );
  await run('chroot', [tree, 'systemctl', 'enable', 'fog-demo-check.service', 'serial-getty@ttyS0.service']);
  await rm(join(tree, 'etc/machine-id'), { force: true });
  await put('etc/machine-id', 'uninitialized\n');
  // sums of what an operating system does not change while it runs
  await mkdir(join(tree, 'var/lib/fog-demo'), { recursive: true });
  await run(
    'chroot',
    [
      tree,
      'sh',
      '-c',
      'find usr boot -xdev -type f ! -path "boot/grub/*" -print0 | LC_ALL=C sort -z | xargs -0 b2sum > /var/lib/fog-demo/root.b2',
    ],
    { timeoutMs: 300_000 },
  );
};

const kernelOf = async (tree: string): Promise<{ kernel: string }> => {
  const { stdout } = await run('sh', ['-c', 'ls "$1"/boot | grep ^vmlinuz- | head -n1', 'sh', tree]);
  return { kernel: stdout.trim().replace('vmlinuz-', '') };
};

const grubConfig = (kernel: string): string => `serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=0
search --no-floppy --fs-uuid --set=root ${uuids.root}
linux /boot/vmlinuz-${kernel} root=UUID=${uuids.root} ro console=tty0 console=ttyS0,115200 quiet
initrd /boot/initrd.img-${kernel}
boot
`;

const makeEsp = async (file: string, tree: string): Promise<void> => {
  await run('mkfs.vfat', ['-F', '32', '-n', 'ESP', '-i', '1a2b3c4d', file]);
  const stub = join(tree, '..', 'grub.cfg');
  await writeFile(
    stub,
    `search --no-floppy --fs-uuid --set=root ${uuids.root}\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n`,
  );
  const shim = join(tree, 'usr/lib/shim/shimx64.efi.signed');
  const grub = join(tree, 'usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed');
  await run('mmd', ['-i', file, '::/EFI', '::/EFI/BOOT', '::/EFI/debian']);
  for (const [from, to] of [
    [shim, 'EFI/debian/shimx64.efi'],
    [grub, 'EFI/debian/grubx64.efi'],
    [stub, 'EFI/debian/grub.cfg'],
    [shim, 'EFI/BOOT/BOOTX64.EFI'],
    [grub, 'EFI/BOOT/grubx64.efi'],
    [stub, 'EFI/BOOT/grub.cfg'],
  ] as const) {
    await run('mcopy', ['-i', file, from, `::/${to}`]);
  }
};

/** Thousands of small files and a few large ones; the list of their BLAKE2 sums. */
const makeData = async (file: string, work: string): Promise<string> => {
  await run('mkntfs', ['-F', '-Q', '-q', '-L', 'Data', '-p', '2048', '-H', '16', '-S', '63', file]);
  const mount = join(work, 'mnt');
  await mkdir(mount);
  await run('ntfs-3g', [file, mount]);
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

const inputsHash = async (): Promise<string> => {
  const hash = createHash('sha256');
  for (const name of ['source-disk.ts', 'bios-grub.ts', 'check.sh'])
    hash.update(await readFile(join(root, 'scripts/lib/demo', name)));
  return hash.digest('hex').slice(0, 16);
};

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );
