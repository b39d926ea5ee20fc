import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { run } from '../../agent/process/run.ts';
import { AGENT_ENTRIES, agentLayer } from '../../initramfs/build/agent-layer.ts';
import { debianParts } from '../../initramfs/build/base.ts';
import { hashFile } from '../../initramfs/build/cache.ts';
import { firstStage } from '../../initramfs/build/first-stage.ts';
import { type Artefacts, buildInitramfs, OUTPUT } from '../../initramfs/build.ts';

const CACHE = join(import.meta.dirname, '../../out/cache');

let artefacts: Artefacts;
let files: string;

test.before(async () => {
  artefacts = await buildInitramfs();
  const base = artefacts.layers.find(({ name }) => name === 'base');
  files = base ? await listBase(base.sha256) : '';
});

/** The base layer's files, from the archive that machines get. */
const listBase = async (sha256: string): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'fog-initramfs-'));
  try {
    const squashfs = join(folder, 'base.squashfs');
    const { stdout } = await run('find', [CACHE, '-name', 'base.squashfs', '-path', '*/base-*']);
    for (const path of stdout.split('\n').filter(Boolean)) {
      if ((await hashFile(path)) !== sha256) continue;
      await run('ln', ['-s', path, squashfs]);
      return (await run('unsquashfs', ['-ls', '-d', '', squashfs])).stdout;
    }
    throw new Error('Cannot list the base layer: it is not in the cache');
  } finally {
    await rm(folder, { recursive: true });
  }
};

test('a second build with nothing changed makes no layer and leaves every file alone', async (t) => {
  const lines: string[] = [];
  const before = await stat(join(OUTPUT, 'initrd.img'));
  const again = await buildInitramfs({ log: (line) => lines.push(line) });
  t.deepEqual(again, artefacts);
  t.true(lines.length >= 8);
  t.deepEqual(
    lines.filter((line) => !line.endsWith(': unchanged')),
    [],
  );
  t.is((await stat(join(OUTPUT, 'initrd.img'))).mtimeMs, before.mtimeMs);
});

test("another agent makes the agent's layer and the archive, nothing else", async (t) => {
  const out = await mkdtemp(join(tmpdir(), 'fog-initramfs-'));
  t.teardown(() => rm(out, { recursive: true }));
  const lines: string[] = [];
  // a text of its own each time, or the cache would have it from the last run
  const entry = join(out, 'main.ts');
  await writeFile(
    entry,
    `console.log('not the agent of ${out}');
`,
  );
  const other = await buildInitramfs({ out, log: (line) => lines.push(line), entries: { main: entry } });
  t.deepEqual(
    lines.filter((line) => line.endsWith(': building')),
    ['agent: building', 'output: building'],
  );
  t.not(other.inputs, artefacts.inputs);
  t.deepEqual(other.layers.slice(0, 2), artefacts.layers.slice(0, 2));
  t.deepEqual(other.packs, artefacts.packs);
});

test('the description is true of every file', async (t) => {
  const packs = Object.values(artefacts.packs).map(
    (pack) => [`packs/${pack.sha256}.squashfs`, pack] as const,
  );
  const described = [...Object.entries(artefacts.files), ...packs];
  t.deepEqual(Object.keys(artefacts.files), [
    'initrd.img',
    'vmlinuz',
    'shimx64.efi',
    'grubx64.efi',
    'undionly.kpxe',
    'ipxe.efi',
    'snponly.efi',
    'disk-loader/shimx64.efi',
    'disk-loader/grubx64.efi',
  ]);
  t.deepEqual(Object.keys(artefacts.packs), ['memtester', 'testdisk']);
  for (const [path, { size, sha256 }] of described) {
    t.is((await stat(join(OUTPUT, path))).size, size, path);
    t.is(await hashFile(join(OUTPUT, path)), sha256, path);
  }
});

test('the initramfs has at most 110 MB', (t) => {
  const size = artefacts.files['initrd.img']?.size ?? 0;
  t.log(`${(size / 1e6).toFixed(1)} MB`);
  t.true(size > 50e6 && size <= 110e6);
});

test('the same inputs make the same bytes', async (t) => {
  const log = (): void => {};
  const parts = await debianParts({ root: CACHE, log });
  const hashes: string[][] = [];
  for (const _ of [1, 2]) {
    const root = await mkdtemp(join(tmpdir(), 'fog-initramfs-'));
    t.teardown(() => rm(root, { recursive: true }));
    const first = await firstStage({ root, log }, parts);
    const agent = await agentLayer({ root, log }, AGENT_ENTRIES);
    hashes.push([
      await hashFile(join(first.folder, 'first-stage.cpio')),
      await hashFile(join(agent.folder, 'agent.squashfs')),
    ]);
  }
  t.deepEqual(hashes[0], hashes[1]);
  t.is(hashes[0]?.[1], artefacts.layers.find(({ name }) => name === 'agent')?.sha256);
});

test('kernel and Secure Boot loaders carry their signatures', async (t) => {
  for (const [path, signer] of [
    ['vmlinuz', 'Debian Secure Boot Signer'],
    ['grubx64.efi', 'Debian Secure Boot Signer'],
    ['disk-loader/grubx64.efi', 'Debian Secure Boot Signer'],
    ['shimx64.efi', 'Microsoft Windows UEFI Driver Publisher'],
  ] as const) {
    t.true((await readFile(join(OUTPUT, path))).includes(signer), path);
  }
});

const programs = [
  ...['bash', 'busybox', 'less', 'nano', 'udevadm', 'ip', 'modprobe', 'kexec', 'setsid'],
  ...['blkdiscard', 'blkid', 'blockdev', 'findmnt', 'losetup', 'lsblk', 'partx', 'wipefs'],
  ...[
    'sfdisk',
    'sgdisk',
    'efibootmgr',
    'smartctl',
    'nvme',
    'hdparm',
    'dmidecode',
    'lspci',
    'lsusb',
    'ethtool',
  ],
  ...['e2fsck', 'resize2fs', 'tune2fs', 'debugfs', 'badblocks', 'mkfs.ext4'],
  ...['ntfsresize', 'ntfsfix', 'ntfslabel', 'mkfs.ntfs', 'ntfs-3g'],
  ...['xfs_repair', 'xfs_growfs', 'xfs_admin', 'btrfs', 'btrfstune', 'fsck.f2fs', 'resize.f2fs'],
  ...['fsck.fat', 'mkfs.fat', 'fsck.exfat', 'mkfs.exfat', 'mkswap', 'swaplabel'],
  ...['partclone.extfs', 'partclone.ntfs', 'partclone.xfs', 'partclone.btrfs', 'partclone.fat'],
  ...['partclone.exfat', 'partclone.f2fs'],
  ...['lvm', 'mdadm', 'dmsetup', 'cryptsetup', 'dislocker-fuse'],
];

test('the tools of every task are there', (t) => {
  const missing = programs.filter((name) => !new RegExp(`^/usr/s?bin/${escapeDots(name)}$`, 'm').test(files));
  t.deepEqual(missing, []);
});

const modules = [
  ...[
    'ahci',
    'ata_piix',
    'nvme',
    'vmd',
    'virtio_blk',
    'virtio_scsi',
    'sd_mod',
    'usb-storage',
    'uas',
    'sdhci-pci',
  ],
  ...['megaraid_sas', 'mpt3sas', 'mpi3mr', 'aacraid', 'hpsa', 'smartpqi', 'vmw_pvscsi', 'hv_storvsc'],
  ...['e1000e', 'igb', 'igc', 'ixgbe', 'i40e', 'ice', 'r8169', 'tg3', 'bnx2x', 'mlx5_core', 'atlantic'],
  ...['virtio_net', 'vmxnet3', 'hv_netvsc', 'r8152', 'ax88179_178a', 'cdc_ether'],
  ...['usbhid', 'hid-generic', 'hyperv-keyboard', 'xhci-pci', 'ehci-pci', 'uhci-hcd'],
  ...['dm-mod', 'dm-snapshot', 'dm-flakey', 'dm-crypt', 'raid1', 'raid456', 'loop', 'zram', 'scsi_debug'],
  ...[
    'ext4',
    'xfs',
    'btrfs',
    'f2fs',
    'vfat',
    'exfat',
    'ntfs3',
    'nls_cp437',
    'efivarfs',
    'overlay',
    'squashfs',
  ],
];

test('drivers for disks, network cards, keyboards and filesystems are there', (t) => {
  t.deepEqual(
    modules.filter((name) => !new RegExp(`/${escapeDots(name)}\\.ko\\.xz$`, 'm').test(files)),
    [],
  );
});

test('no sound, no wireless, no graphics cards, no documentation, no package manager, no interpreter but the shell', (t) => {
  for (const pattern of [
    /kernel\/sound\//,
    /kernel\/drivers\/net\/wireless\//,
    /kernel\/drivers\/bluetooth\//,
    /kernel\/drivers\/gpu\/drm\/(amd|i915|nouveau|radeon|xe)/,
    /firmware\/(iwlwifi|rtlwifi|rtw8|ath1|brcm|rtl_bt)/,
    /\/usr\/share\/(doc|man|locale)\/./,
    /\/usr\/bin\/(apt|dpkg|perl|python3|ruby)$/m,
  ]) {
    t.notRegex(files, pattern);
  }
});

test('no udev rule assembles, tunes or connects anything', (t) => {
  for (const rule of [
    '64-md-raid-assembly',
    '69-lvm',
    '69-bcache',
    '60-multipath',
    '85-hdparm',
    '70-nvmf-autoconnect',
  ]) {
    t.notRegex(files, new RegExp(`rules\\.d/${rule}`));
  }
  t.regex(files, /rules\.d\/80-drivers\.rules/);
});

const escapeDots = (text: string): string => text.replace(/[.+]/g, '\\$&');
