import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { PROJECT } from '../../initramfs/build/lists.ts';
import { buildInitramfs } from '../../initramfs/build.ts';
import type { MachineOptions } from '../../scripts/lib/vm/machine.ts';
import { hashOf } from '../integration/loop-device.ts';
import { runFilesystemGuest } from './filesystem-machine.ts';
import { type GuestRun, runGuest } from './run-guest.ts';

const MIB = 1024 * 1024;
let facts: GuestRun['facts'] = new Map();
let exit: GuestRun['exit'] | undefined;
let files: Record<string, string> = {};
const hashes: Record<string, string> = {};

let folder = '';
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vm-disk-'));
  const out = join(PROJECT, 'out/test/disk-guest');
  await buildInitramfs({ out, entries: { main: join(import.meta.dirname, 'disk-guest.ts') } });
  files = Object.fromEntries(
    await Promise.all(
      ['sata', 'nvme', 'usb', 'read-only', '4kn'].map(async (name) => {
        const path = join(folder, name);
        await using file = await open(path, 'w');
        await file.truncate(300 * MIB);
        await file.write(Buffer.from(`content of ${name}`), 0, null, 100 * MIB);
        return [name, path] as const;
      }),
    ),
  );
  for (const [name, path] of Object.entries(files)) hashes[name] = await hashOf(path);
  const machine: MachineOptions = {
    firmware: 'uefi',
    memory: 1536,
    kernel: {
      image: join(out, 'vmlinuz'),
      initrd: join(out, 'initrd.img'),
      commandLine: 'console=ttyS0 BOOTIF=01-52-54-00-ab-cd-ef',
    },
    nics: [{ mac: '52:54:00:12:34:56' }, { mac: '52:54:00:ab:cd:ef' }],
    uuid: '4c4c4544-0043-3510-8052-b4c04f564231',
    disks: [
      { file: files['sata'] ?? '', bus: 'sata', serial: 'SATA-1' },
      { file: files['nvme'] ?? '', bus: 'nvme', serial: 'NVME-1' },
      { file: files['usb'] ?? '', bus: 'usb', serial: 'USB-1' },
      { file: files['read-only'] ?? '', bus: 'virtio', serial: 'RO-1', readOnly: true },
      { file: files['4kn'] ?? '', bus: 'virtio', serial: '4KN-1', sectorSize: 4096 },
    ],
  };
  ({ exit, facts } = await runGuest(machine, { timeoutMs: 12 * 60_000 }));
});

test.after.always(async () => {
  if (folder) await rm(folder, { recursive: true, force: true });
});

test('the guest came to its end', (t) => {
  t.is(exit?.reason, 'guest-shutdown');
});

test('every disk and partition is read-only at boot, and a write without a claim does not reach the disk', (t) => {
  const flags: Record<string, string> = facts.get('flags');
  t.true(Object.keys(flags).length >= 5);
  for (const [name, flag] of Object.entries(flags)) t.is(flag, '1', name);
  t.is(facts.get('write without a claim').error, 'DISK_WRITE_FAILED');
});

test('disks are known by serial on every bus, and read-only hardware by nature where it says so', (t) => {
  const disks: Record<string, unknown>[] = facts.get('disks');
  const of = (serial: string) => disks.find((disk) => disk['serial'] === serial);
  t.is(of('SATA-1')?.['transport'], 'sata');
  t.is(of('NVME-1')?.['transport'], 'nvme');
  t.is(of('USB-1')?.['onlyWhenNamed'], 'USB');
  t.true(of('RO-1')?.['readOnly']);
  t.false(of('SATA-1')?.['readOnly']);
  t.is(of('4KN-1')?.['logicalSectorSize'], 4096);
  t.true(disks.filter(({ skipped }) => skipped === 'loop device').length > 0);
});

test('selection: several disks are ambiguous, a serial decides, read-only and missing ones are not found', (t) => {
  t.is(facts.get('select.none').error, 'DISK_AMBIGUOUS');
  t.is(facts.get('select.nvme'), 'NVME-1');
  t.is(facts.get('select.usb'), 'USB-1');
  t.is(facts.get('select.read-only.deploy').error, 'DISK_NOT_FOUND');
  t.is(facts.get('select.read-only.capture'), 'RO-1');
  t.is(facts.get('select.nothing').error, 'DISK_NOT_FOUND');
});

test('write-protected hardware is found by the claim', (t) => {
  t.is(facts.get('claim.read-only').error, 'DISK_WRITE_FAILED');
  t.regex(facts.get('claim.read-only').message, /write-protected/);
});

test('table, partition devices, growth and boot entry work under udev, and all is read-only afterwards', (t) => {
  const deploy = facts.get('deploy');
  t.is(deploy.error, undefined, deploy.message);
  t.deepEqual(
    deploy.table.partitions.map(({ number, label }: { number: number; label: string }) => [number, label]),
    [
      [1, 'EFI "é", 😀'],
      [2, ''],
      [3, ''],
      [4, ''],
    ],
  );
  t.is(deploy.discard.warning, null);
  const { name: disk } = deploy;
  for (const name of [disk, `${disk}1`, `${disk}4`]) t.is(deploy.during[name], '0', name);
  const flags: Record<string, string> = facts.get('flags after release');
  t.is(flags[`${disk}4`], '1');
  for (const [name, flag] of Object.entries(flags)) t.is(flag, '1', name);
});

test('one boot entry for the disk that was written, the former one gone, BootNext set', (t) => {
  const first = facts.get('deploy').boot;
  t.is(first.loader, '\\EFI\\debian\\shimx64.efi');
  t.deepEqual(first.warnings, []);
  t.is(first.evidence.length, 2);
  const again = facts.get('deploy again');
  t.is(again.error, undefined, again.message);
  t.is(again.loader, '\\EFI\\Microsoft\\Boot\\bootmgfw.efi');
  t.regex(again.warnings.join(), /BOOTX64/);
  const menu = facts.get('menu');
  const mine = menu.entries.filter(({ label }: { label: string }) => label === 'Windows Boot Manager');
  t.is(mine.length, 1);
  t.is(mine[0].partition, '22222222-2222-4222-8222-222222222222');
  t.is(menu.next, mine[0].number);
  // started without the network by QEMU: nothing to stay behind
  t.is(menu.order[0], mine[0].number);
});

test('a fallback loader is made of what the entry names, only where there is none and room for it', (t) => {
  const found = facts.get('fallback');
  t.is(found.error, undefined, found.message);
  t.deepEqual(found.made.warnings, []);
  t.is(found.made.evidence.length, 1);
  const { files } = found;
  t.is(files['EFI/BOOT/BOOTX64.EFI'], files['EFI/debian/shimx64.efi']);
  t.is(files['EFI/BOOT/grubx64.efi'], files['EFI/debian/grubx64.efi']);
  t.is(files['EFI/BOOT/mmx64.efi'], files['EFI/debian/mmx64.efi']);
  t.is(Object.keys(files).length, 7, 'nothing more: shim’s own fallback would make entries');
  t.deepEqual(found.again, { evidence: [], warnings: [] });
  t.true(found.same);
  t.regex(found.full.warnings.join(), /BOOTX64.*no room/);
  t.false(found.left.some((name: string) => /BOOTX64/i.test(name)));
});

test('a firmware without room for variables: the fallback loader will do, and nothing less', (t) => {
  const full = facts.get('full firmware');
  t.is(full.error, undefined, full.message);
  t.regex(full.reason, /ENOSPC/);
  t.is(full.without, 'BOOT_ENTRY_FAILED');
  t.is(full.placed.evidence.length, 1);
  t.is(full.withFallback.entry, null);
  t.regex(full.withFallback.warnings.join(), /BOOTX64/);
  t.is(full.withFallback.evidence.length, 1);
  t.false(full.menu.entries.some(({ label }: { label: string }) => label === 'full'));
});

test('capture-side functions leave the disk as it was', (t) => {
  const look = facts.get('read-only look');
  t.is(look.error, undefined, look.message);
  t.true(look.same);
  t.is(look.table, 'gpt');
  t.true(look.found.ext4.extents > 0);
  t.true(look.found.vfat.extents > 0);
  // grown, and clean again
  t.true(look.found.ntfs.extents > 0);
  t.regex(look.found['vfat mounted'], /efi/i);
});

test('a disk with 4096-byte sectors gets its GPT', (t) => {
  t.is(facts.get('4096'), 'EFI PART');
});

for (const [name, partitions] of [
  ['chain', 21],
  ['chain backwards', 4],
] as const) {
  test(`a ${name} of logical partitions is what the kernel itself finds`, (t) => {
    const chain = facts.get(name);
    t.is(chain.error, undefined, chain.message);
    t.is(chain.found.length, partitions);
    t.deepEqual(chain.found, chain.planned);
    t.is(chain.container, String((19 * MIB) / 512));
  });
}

test('identity and inventory say what the machine is', (t) => {
  t.like(facts.get('identity'), {
    macs: ['52:54:00:ab:cd:ef', '52:54:00:12:34:56'],
    uuid: '4c4c4544-0043-3510-8052-b4c04f564231',
    firmware: 'uefi',
    // OVMF without keys
    secureBoot: 'setup',
  });
  const inventory = facts.get('inventory');
  t.is(inventory.error, undefined, inventory.message);
  t.true(inventory.memoryBytes > 1024 * MIB);
  t.is(inventory.cpu.threads, 1);
  t.is(inventory.network.length, 2);
  t.is(inventory.efiLoader, '\\EFI\\Microsoft\\Boot\\bootmgfw.efi');
});

test('disks that nobody claimed were not written to', async (t) => {
  for (const name of ['nvme', 'usb', 'read-only']) {
    t.is(await hashOf(files[name] ?? ''), hashes[name] ?? '', name);
  }
  // in the order of attachment: sata, nvme, usb, …
  for (const index of [1, 2, 3]) t.is(exit?.disks[index]?.writes, 0);
});

if (process.env['FOG_TEST_MATRIX']) {
  test('with the tools that ship, used blocks alone keep every file of every filesystem, and what can grow does', async (t) => {
    t.timeout(15 * 60_000);
    const found = await runFilesystemGuest();
    const names = ['ext4', 'ntfs', 'FAT12', 'FAT16', 'FAT32', 'exfat', 'xfs', 'btrfs', 'f2fs'];
    for (const name of [...names, 'btrfs with a block group tree']) {
      const fact = found.get(name);
      t.true(fact?.same, `${name}: ${JSON.stringify(fact)}`);
      t.is(fact?.files, 45, name);
      t.true((fact?.used ?? 0) > MIB && (fact?.used ?? 0) < 200 * MIB, name);
      t.true((fact?.minimum ?? 0) > MIB, name);
    }
    t.is(found.get('ext4')?.label, 'a, "b" \\ü');
    t.is(found.get('f2fs')?.label, 'a, "b" \\ü');
  });
}
