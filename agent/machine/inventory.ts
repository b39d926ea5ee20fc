import { readFile } from 'node:fs/promises';
import si from 'systeminformation';
import { listDisks } from '../disk/disk.ts';
import { readAttribute } from '../disk/sysfs.ts';
import { readTable } from '../disk/table.ts';
import { hasCode, isImagingError } from '../errors.ts';
import { diskFactsSchema, type Identity, type Inventory, inventorySchema } from '../protocol/index.ts';
import { readBootMenu } from './efi-variables.ts';
import { meaningful, readIdentity } from './identity.ts';
import { readInterfaces } from './network.ts';

export interface InventoryOptions {
  /** read already at check-in; default: read now */
  identity?: Identity;
  now?: () => Date;
  signal?: AbortSignal;
}

const DMI = '/sys/class/dmi/id';

/**
 * What this machine is made of. Read-only. Disks come from lsblk and sysfs: systeminformation 5.33
 * leaves out disks without a model.
 *
 * @throws ImagingError NETWORK_UNREACHABLE (no interface), TOOL_FAILED, TASK_CANCELLED
 */
export const collectInventory = async (options: InventoryOptions = {}): Promise<Inventory> => {
  const { now = () => new Date(), signal } = options;
  const wait = signal ? { signal } : {};
  const identity = options.identity ?? (await readIdentity());
  const [cpu, graphics, disks] = [await si.cpu(), await si.graphics(), await listDisks(wait)];
  signal?.throwIfAborted();
  const dmi = async (name: string) => meaningful(await readAttribute(DMI, name)) ?? '';
  const efiLoader = await readEfiLoader(identity, disks, wait);
  return inventorySchema.parse({
    collectedAt: now().toISOString(),
    identity,
    bios: {
      vendor: await dmi('bios_vendor'),
      version: await dmi('bios_version'),
      date: await dmi('bios_date'),
    },
    board: {
      manufacturer: await dmi('board_vendor'),
      product: await dmi('board_name'),
      serial: await dmi('board_serial'),
    },
    cpu: {
      model: `${cpu.manufacturer} ${cpu.brand}`.trim(),
      sockets: cpu.processors || 1,
      cores: cpu.physicalCores,
      threads: cpu.cores,
      maxMHz: cpu.speedMax ? Math.round(cpu.speedMax * 1000) : null,
    },
    memoryBytes: await memoryBytes(),
    disks: disks.filter(isHardware).map((disk) => diskFactsSchema.parse(disk)),
    network: await readInterfaces(),
    graphics: graphics.controllers.map(({ vendor, model }) => `${vendor} ${model}`.trim()).filter(Boolean),
    ...(efiLoader ? { efiLoader } : {}),
  });
};

/** Not the layers of our own root, nor compressed memory. */
const isHardware = ({ name }: { name: string }): boolean => !/^(loop|zram|ram|dm-|md)\d/.test(name);

/** What the kernel has to give, a little less than what is built in. */
const memoryBytes = async (): Promise<number> =>
  Number(/^MemTotal:\s+(\d+) kB/m.exec(await readFile('/proc/meminfo', 'utf8'))?.[1] ?? 0) * 1024;

/**
 * The loader that the firmware would start from a disk of this machine: the first active entry in
 * boot order that points to a partition that exists.
 */
const readEfiLoader = async (
  identity: Identity,
  disks: Awaited<ReturnType<typeof listDisks>>,
  wait: { signal?: AbortSignal },
): Promise<string | undefined> => {
  if (identity.firmware !== 'uefi') return undefined;
  const present = new Set<string>();
  try {
    const menu = await readBootMenu(wait);
    for (const disk of disks) {
      if (disk.skipped || disk.size === 0) continue;
      for (const { uuid } of await readPartitions(disk.path, wait)) present.add(uuid);
    }
    const candidates = menu.order.flatMap((number) =>
      menu.entries.filter((entry) => entry.number === number),
    );
    return (
      candidates.find(
        ({ active, partition, loader }) =>
          active && loader !== null && partition !== null && present.has(partition),
      )?.loader ?? undefined
    );
  } catch (error) {
    // no efivarfs: the server falls back to the known paths
    if (hasCode(error, 'TOOL_FAILED') || hasCode(error, 'TOOL_MISSING')) return undefined;
    throw error;
  }
};

const readPartitions = async (path: string, wait: { signal?: AbortSignal }) => {
  try {
    return (await readTable(path, wait)).partitions;
  } catch (error) {
    // a layout that cannot be imaged is still a machine that can be listed
    if (isImagingError(error) && !hasCode(error, 'TASK_CANCELLED')) return [];
    throw error;
  }
};
