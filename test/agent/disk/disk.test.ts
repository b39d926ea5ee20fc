import { readFileSync } from 'node:fs';
import test from 'ava';
import { type Content, type Disk, parseLsblk, toDisk } from '../../../agent/disk/disk.ts';
import type { SysfsDisk } from '../../../agent/disk/sysfs.ts';

const fixture = readFileSync('test/fixtures/tools/lsblk/util-linux-2.41-qemu.json', 'utf8');
const plain: SysfsDisk = { sequence: 7, hardwareReadOnly: false, card: false, serial: null, wwn: null };

const disksOf = (json: string, sysfs: SysfsDisk = plain, contents = new Map<string, Content>()): Disk[] =>
  parseLsblk(json).map((node) => toDisk(node, sysfs, contents));

const node = (more: Record<string, unknown>): string =>
  JSON.stringify({
    blockdevices: [
      {
        ...{
          name: 'sda',
          kname: 'sda',
          path: '/dev/sda',
          type: 'disk',
          size: 1000204886016,
          model: 'M',
          serial: 'S',
        },
        ...{
          wwn: null,
          'log-sec': 512,
          'phy-sec': 4096,
          rota: false,
          rm: false,
          tran: 'sata',
          mountpoints: [null],
        },
        ...more,
      },
    ],
  });

test('disks of a machine with USB, SATA, virtio and NVMe, recorded from util-linux 2.41', (t) => {
  const disks = disksOf(fixture);
  t.deepEqual(
    disks.map(({ path, serial, transport, logicalSectorSize, skipped, onlyWhenNamed }) => [
      ...[path, serial, transport, logicalSectorSize],
      skipped ?? onlyWhenNamed,
    ]),
    [
      ['/dev/loop0', undefined, undefined, 512, 'loop device'],
      ['/dev/loop1', undefined, undefined, 512, 'loop device'],
      ['/dev/loop2', undefined, undefined, 512, 'loop device'],
      ['/dev/sda', 'USB-1', 'usb', 512, 'USB'],
      ['/dev/sdb', 'SATA-1', 'sata', 512, undefined],
      ['/dev/vda', 'RO-1', 'virtio', 512, undefined],
      ['/dev/vdb', '4KN-1', 'virtio', 4096, undefined],
      ['/dev/nvme0n1', 'NVME-1', 'nvme', 512, undefined],
      ['/dev/nvme1n1', 'RO-NVME', 'nvme', 512, undefined],
    ],
  );
});

const skipped = test.macro((t, more: Record<string, unknown>, reason: RegExp, content?: string) => {
  const contents = new Map([['sda', { number: null, type: content ?? '', label: '' }]]);
  const [disk] = disksOf(node(more), plain, contents);
  t.regex(disk?.skipped ?? '', reason);
});

test('an optical drive is no disk', skipped, { type: 'rom', kname: 'sr0' }, /optical/);
test('zram is no disk', skipped, { kname: 'zram0' }, /memory/);
test('a floppy drive is no disk', skipped, { kname: 'fd0' }, /floppy/);
test('the boot partition of an eMMC is no disk', skipped, { kname: 'mmcblk0boot0' }, /eMMC/);
test('the protected area of an eMMC is no disk', skipped, { kname: 'mmcblk0rpmb' }, /eMMC/);
test('a reader without a card is no disk', skipped, { size: 0 }, /no medium/);
test('device-mapper is no disk', skipped, { type: 'crypt', kname: 'dm-0' }, /crypt/);
test('a member of a firmware RAID is never written', skipped, {}, /RAID set/, 'isw_raid_member');
test('a member of a Linux RAID is never written', skipped, {}, /RAID set/, 'linux_raid_member');

test('the kernel’s read-only flag says nothing, virtio’s feature bit does', (t) => {
  t.false(disksOf(node({ ro: true }))[0]?.readOnly);
  t.true(disksOf(node({ ro: true }), { ...plain, hardwareReadOnly: true })[0]?.readOnly);
});

test('memory cards, removable and network disks are taken only when named', (t) => {
  t.is(disksOf(node({}), { ...plain, card: true })[0]?.onlyWhenNamed, 'memory card');
  t.is(disksOf(node({ rm: true }))[0]?.onlyWhenNamed, 'removable');
  t.is(disksOf(node({ tran: 'iscsi' }))[0]?.onlyWhenNamed, 'storage network');
  t.is(disksOf(node({}))[0]?.onlyWhenNamed, undefined);
});

test('serial and WWN come from sysfs where udev knows none', (t) => {
  const [disk] = disksOf(node({ serial: null }), { ...plain, serial: 'K1', wwn: 'naa.5000c500a1b2c3d4' });
  t.like(disk, { serial: 'K1', wwn: 'naa.5000c500a1b2c3d4' });
});

test('mounts of partitions and of what is built on them belong to the disk', (t) => {
  const child = JSON.parse(
    node({ name: 'sda2', kname: 'sda2', path: '/dev/sda2', type: 'part', start: 2048 }),
  ).blockdevices[0];
  child.children = [
    JSON.parse(
      node({ name: 'vg-root', kname: 'dm-0', path: '/dev/mapper/vg-root', type: 'lvm', mountpoints: ['/'] }),
    ).blockdevices[0],
  ];
  const contents = new Map([['sda2', { number: 2, type: 'LVM2_member', label: '' }]]);
  const [disk] = disksOf(node({ children: [child], mountpoints: ['[SWAP]', null] }), plain, contents);
  t.deepEqual(disk?.mounts, ['[SWAP]', '/']);
  t.deepEqual(disk?.partitions, [
    {
      path: '/dev/sda2',
      number: 2,
      start: 1048576,
      size: 1000204886016,
      filesystem: 'LVM2_member',
      label: '',
    },
  ]);
});

test('what is not lsblk’s JSON is refused', (t) => {
  for (const text of ['', '{}', '{"blockdevices":[{"name":"sda"}]}']) {
    t.throws(() => parseLsblk(text), { code: 'TOOL_FAILED' });
  }
});
