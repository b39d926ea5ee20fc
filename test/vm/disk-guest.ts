// Runs inside the initramfs in place of the agent: what only a machine with real buses, udev and EFI
// variables can show. Prints facts as JSON lines; disk.test.ts says what they must be.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { claimDisk } from '../../agent/disk/claim.ts';
import { readAt, writeAt } from '../../agent/disk/device-io.ts';
import { discardRanges } from '../../agent/disk/discard.ts';
import { type Disk, listDisks } from '../../agent/disk/disk.ts';
import { mountReadOnly } from '../../agent/disk/mount.ts';
import { addPartitions, flushDevice } from '../../agent/disk/partition-nodes.ts';
import { selectDisk } from '../../agent/disk/select.ts';
import { readAttribute } from '../../agent/disk/sysfs.ts';
import { readTable, removeTable, writeTable } from '../../agent/disk/table.ts';
import { toImagingError } from '../../agent/errors.ts';
import { driverFor } from '../../agent/filesystem/index.ts';
import { probe } from '../../agent/filesystem/probe.ts';
import { setBootEntry } from '../../agent/machine/efi-boot.ts';
import { placeFallbackLoader } from '../../agent/machine/efi-fallback.ts';
import { readBootMenu } from '../../agent/machine/efi-variables.ts';
import { readIdentity } from '../../agent/machine/identity.ts';
import { collectInventory } from '../../agent/machine/inventory.ts';
import { power } from '../../agent/machine/power.ts';
import { run } from '../../agent/process/run.ts';
import type { DiskHint, Plan, PlannedPartition } from '../../agent/protocol/index.ts';
import { printFact } from './guest.ts';

const MIB = 1024 * 1024;
const { signal } = new AbortController();

const disks = await listDisks();

const selected = async (
  hint: DiskHint | undefined,
  purpose: 'capture' | 'deploy',
): Promise<string | undefined> => selectDisk(disks, hint, purpose).serial;

const bySerial = async (serial: string): Promise<Disk> => selectDisk(await listDisks(), { serial }, 'deploy');

const readOnlyFlags = async (): Promise<Record<string, string | null>> => {
  const flags: Record<string, string | null> = {};
  for (const { name, partitions, serial } of await listDisks()) {
    if (!serial) continue;
    for (const node of [name, ...partitions.map(({ path }) => path.slice(5))]) {
      flags[node] = await readAttribute(`/sys/class/block/${node}`, 'ro');
    }
  }
  return flags;
};

const hashOf = async (path: string): Promise<string> => {
  const hash = createHash('sha256');
  for await (const block of createReadStream(path, { highWaterMark: MIB })) hash.update(block);
  return hash.digest('hex');
};

const partition = (number: number, start: number, size: number, more: Partial<PlannedPartition>) => ({
  ...{ name: `p${number}`, number, start, size, contentSize: size, grow: false, label: '', attributes: '' },
  ...{ role: 'data' as const, method: 'used' as const, filesystem: '' },
  type: '0fc63daf-8483-4772-8e79-3d69d8477de4',
  uuid: '',
  bootRecord: null,
  ...more,
});

const ESP = 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b';

const planFor = (disk: Disk, espUuid: string): Plan => ({
  ...{ image: 'debian', version: 1, imageDisk: 'd1', table: 'gpt', warnings: [], unused: [] },
  ...{ oldTable: 'removed', extended: null, kept: [], moved: [] },
  disk: { serial: '', wwn: '', size: disk.size, logicalSectorSize: disk.logicalSectorSize },
  tableId: 'd3b07384-d113-4ec6-a7d4-0123456789ab',
  partitions: [
    partition(1, MIB, 64 * MIB, {
      type: ESP,
      role: 'esp',
      filesystem: 'vfat',
      uuid: espUuid,
      label: 'EFI "é", 😀',
    }),
    partition(2, 65 * MIB, 128 * MIB, { role: 'os', filesystem: 'ext4', grow: true }),
    partition(3, 193 * MIB, 32 * MIB, { role: 'swap', filesystem: 'swap' }),
    partition(4, 225 * MIB, 64 * MIB, { filesystem: 'ntfs' }),
  ],
});

/** the name that an entry for Windows' loader gets anyway */
const LABEL = 'Windows Boot Manager';

const fillEsp = async (node: string, loaders: readonly string[]): Promise<void> => {
  await run('mkfs.vfat', ['-F', '32', '-s', '1', node]);
  const folder = await mkdtemp(join(tmpdir(), 'esp-'));
  await run('mount', ['-t', 'vfat', node, folder]);
  for (const loader of loaders) {
    const file = join(folder, ...loader.split('\\'));
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, `MZ ${loader}`);
  }
  await run('umount', [folder]);
};

/** What a deploy does around its data, with Debian 13's tools and udev watching. */
const deploy = async () => {
  await using claim = await claimDisk(await bySerial('SATA-1'));
  const plan = planFor(claim.disk, '11111111-1111-4111-8111-111111111111');
  await removeTable(claim);
  const nodes = await addPartitions(claim, plan);
  const [esp = '', root = '', swap = '', data = ''] = ['p1', 'p2', 'p3', 'p4'].map((name) => nodes.get(name));
  await fillEsp(esp, ['\\EFI\\debian\\shimx64.efi', '\\EFI\\BOOT\\BOOTX64.EFI']);
  await run('mkfs.ext4', ['-q', root, '64M']);
  const geometry = ['--sectors-per-track', '63', '--heads', '255', '--partition-start', '2048'];
  await run('mkntfs', ['--quick', '--force', ...geometry, data, String(32 * 2048)]);
  for (const node of nodes.values()) await flushDevice(node);
  await flushDevice(claim.path);
  await driverFor('ext4')?.grow?.(root, signal);
  await driverFor('ntfs')?.grow?.(data, signal);
  const facts = { uuid: '0b8bd0c5-1a2f-4f5e-9c55-8b6d2c1e0f11', label: 'swäp' };
  await driverFor('swap')?.recreate?.(swap, facts, signal);
  const rest = { start: 289 * MIB, size: 10 * MIB };
  const discard = await discardRanges(claim, [rest]);
  const table = await writeTable(claim, plan, { bootArea: Buffer.alloc(512, 0x90) });
  const boot = await setBootEntry({ claim, partition: 1, device: `${claim.path}1`, label: LABEL });
  return { table, discard, boot, during: await readOnlyFlags(), name: claim.disk.name };
};

/** The same disk gets another image: the entry of the first one must go. */
const deployAgain = async () => {
  await using claim = await claimDisk(await bySerial('SATA-1'));
  const plan = planFor(claim.disk, '22222222-2222-4222-8222-222222222222');
  await removeTable(claim, { keep: plan.partitions });
  const nodes = await addPartitions(claim, plan);
  await fillEsp(nodes.get('p1') ?? '', ['\\EFI\\Microsoft\\Boot\\bootmgfw.efi']);
  await writeTable(claim, plan);
  return await setBootEntry({ claim, partition: 1, device: `${claim.path}1`, label: LABEL });
};

const filesOfEsp = async (node: string): Promise<Record<string, string>> => {
  await using mounted = await mountReadOnly(node, 'vfat');
  const files: Record<string, string> = {};
  for (const entry of await readdir(mounted.path, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile()) files[path.slice(mounted.path.length + 1)] = await readFile(path, 'utf8');
  }
  return files;
};

/** Fallback loaders: made where there is none, left where there is one, impossible on a full ESP. */
const fallback = async () => {
  await using claim = await claimDisk(await bySerial('SATA-1'));
  const plan = planFor(claim.disk, '33333333-3333-4333-8333-333333333333');
  await removeTable(claim, { keep: plan.partitions });
  const node = (await addPartitions(claim, plan)).get('p1') ?? '';
  const place = async () => await placeFallbackLoader(node, 'x64', { signal });
  await fillEsp(
    node,
    ['shim', 'grub', 'mm', 'fb'].map((name) => `\\EFI\\debian\\${name}x64.efi`),
  );
  const made = await place();
  const files = await filesOfEsp(node);
  await flushDevice(node);
  const before = await hashOf(node);
  const again = await place();
  const same = before === (await hashOf(node));
  await fillEsp(node, ['\\EFI\\Microsoft\\Boot\\bootmgfw.efi', '\\EFI\\full']);
  const folder = await mkdtemp(join(tmpdir(), 'esp-'));
  await run('mount', ['-t', 'vfat', node, folder]);
  await run('dd', ['if=/dev/zero', `of=${folder}/fill`, 'bs=1M'], { okExitCodes: [1] });
  await run('dd', ['if=/dev/zero', `of=${folder}/rest`, 'bs=512'], { okExitCodes: [1] });
  await run('umount', [folder]);
  const full = await place();
  return { made, files, again, same, full, left: Object.keys(await filesOfEsp(node)) };
};

/** Variables until the kernel takes none: large ones first, because each write takes the firmware long. */
const fillFirmware = async (): Promise<string> => {
  let reason = '';
  let number = 0;
  for (const size of [7500, 1000, 100]) {
    for (let full = false; !full && number < 200; number++) {
      const name = `/sys/firmware/efi/efivars/Fill${number}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f`;
      // non-volatile, boot and run time access
      const bytes = Buffer.concat([Buffer.from([7, 0, 0, 0]), Buffer.alloc(size, 1)]);
      await writeFile(name, bytes).catch((error) => {
        reason = String(error);
        full = true;
      });
    }
  }
  return reason;
};

/** A firmware that takes no variable any more: with a fallback loader that is a warning, without an error. */
const fullFirmware = async () => {
  await using claim = await claimDisk(await bySerial('SATA-1'));
  const plan = planFor(claim.disk, '44444444-4444-4444-8444-444444444444');
  await removeTable(claim, { keep: plan.partitions });
  const node = (await addPartitions(claim, plan)).get('p1') ?? '';
  await fillEsp(node, ['\\EFI\\debian\\grubx64.efi']);
  await writeTable(claim, plan);
  const reason = await fillFirmware();
  const options = { claim, partition: 1, device: `${claim.path}1`, label: 'full' };
  const without = await setBootEntry(options).catch((error) => toImagingError(error).code);
  const again = (await addPartitions(claim, plan)).get('p1') ?? '';
  const placed = await placeFallbackLoader(again, 'x64', { signal });
  await writeTable(claim, plan);
  return { reason, without, placed, withFallback: await setBootEntry(options), menu: await readBootMenu() };
};

await printFact('disks', async () => disks);
await printFact('flags', readOnlyFlags);
await printFact('identity', readIdentity);
await printFact('select.none', async () => await selected(undefined, 'deploy'));
await printFact('select.nvme', async () => await selected({ serial: 'NVME-1' }, 'deploy'));
await printFact('select.usb', async () => await selected({ serial: 'USB-1' }, 'deploy'));
await printFact('select.read-only.deploy', async () => await selected({ serial: 'RO-1' }, 'deploy'));
await printFact('select.read-only.capture', async () => await selected({ serial: 'RO-1' }, 'capture'));
await printFact('select.nothing', async () => await selected({ serial: 'NONE' }, 'deploy'));
await printFact('claim.read-only', async () => {
  // chosen by somebody who does not ask selectDisk: the claim itself must find out
  await using claim = await claimDisk(selectDisk(disks, { serial: 'RO-1' }, 'capture'));
  return claim.path;
});
await printFact('write without a claim', async () => {
  await writeAt((await bySerial('NVME-1')).path, [{ offset: 0, bytes: new Uint8Array(512) }]);
});
await printFact('deploy', deploy);
await run('udevadm', ['settle']);
await printFact('flags after release', readOnlyFlags);
await printFact('deploy again', deployAgain);
await printFact('menu', readBootMenu);
await printFact('read-only look', async () => {
  const disk = await bySerial('SATA-1');
  const before = await hashOf(disk.path);
  const found: Record<string, unknown> = {};
  for (const { path, size, number } of disk.partitions) {
    const { type } = await probe(path);
    const driver = driverFor(type);
    try {
      await driver?.check(path, signal);
      const usage = await driver?.usage(path, size, signal);
      found[type] = { extents: usage?.extents.length, minimumBytes: usage?.minimumBytes, number };
    } catch (error) {
      found[type] = toImagingError(error).code;
    }
    if (type === 'swap') continue;
    await using mounted = await mountReadOnly(path, type);
    found[`${type} mounted`] = (await run('ls', [mounted.path])).stdout;
  }
  await flushDevice(disk.path);
  return { found, same: before === (await hashOf(disk.path)), table: (await readTable(disk.path)).kind };
});
await printFact('4096', async () => {
  await using claim = await claimDisk(await bySerial('4KN-1'));
  const plan = planFor(claim.disk, '33333333-3333-4333-8333-333333333333');
  await removeTable(claim);
  await addPartitions(claim, plan);
  await writeTable(claim, plan);
  const sector = await readAt(claim.path, 4096, 8);
  return sector.toString('latin1');
});
await printFact('inventory', collectInventory);
await printFact('fallback', fallback);
await printFact('full firmware', fullFirmware);
const chainOf = async (logical: PlannedPartition[]) => {
  await using claim = await claimDisk(await bySerial('4KN-1'));
  const plan: Plan = {
    ...planFor(claim.disk, ''),
    ...{ table: 'dos', tableId: '0x0badcafe' },
    extended: { number: 2, start: 19 * MIB, size: 250 * MIB, type: '0f' },
    partitions: [partition(1, MIB, 16 * MIB, { type: '07', attributes: 'bootable' }), ...logical],
  };
  await removeTable(claim);
  const table = await writeTable(claim, plan);
  // what the kernel finds by itself
  await run('blockdev', ['--rereadpt', claim.path]);
  const found = await Promise.all(
    table.partitions.map(async ({ number }) => {
      const folder = `/sys/class/block/${claim.disk.name}${number}`;
      const [start, size] = [await readAttribute(folder, 'start'), await readAttribute(folder, 'size')];
      return [number, Number(start) * 512, Number(size) * 512];
    }),
  );
  return {
    found,
    planned: plan.partitions
      .toSorted((a, b) => a.start - b.start)
      .map(({ number, start, size }) => [number, start, size]),
    container: await readAttribute(`/sys/class/block/${claim.disk.name}2`, 'start'),
  };
};
const logicalAt = (number: number, start: number, lead: number) =>
  partition(number, start, 2 * MIB, { type: '83', bootRecord: start - lead });
await printFact(
  'chain',
  async () =>
    await chainOf(
      Array.from({ length: 20 }, (_value, index) =>
        logicalAt(5 + index, (4 * index + 20) * MIB, index % 2 === 0 ? MIB : 4096),
      ),
    ),
);
await printFact(
  'chain backwards',
  async () => await chainOf([100, 60, 30].map((at, index) => logicalAt(5 + index, at * MIB, MIB))),
);
console.log('FACTS END');
await power('poweroff');
