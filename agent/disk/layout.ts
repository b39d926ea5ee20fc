import type { ImageDisk, ImagePartition, PartitionRole } from '../protocol/index.ts';
import { gptUsable } from './gpt.ts';

export const MIB = 1024 * 1024;

/** MBR holds 32-bit sector numbers */
export const MBR_SECTORS = 2 ** 32;

/** MBR types of containers of logical partitions; the kernel knows these three. */
export const extendedTypes: ReadonlySet<string> = new Set(['05', '0f', '85']);

/**
 * Whether a partition may begin elsewhere than in the image:
 * - `pinned`: never; something outside the partition counts on its place
 * - `stays`: only where the disk is too small otherwise
 * - `free`: chunks count from a partition's first byte, so a move costs nothing
 */
export type Mobility = 'pinned' | 'stays' | 'free';

/** What takes room on a disk, sorted by place: partitions, and what an MBR chain keeps beside them. Bytes. */
export interface Item {
  /** the partition's name; `extended` for a container without logical partitions, `ebr` for a lone boot record */
  name: string;
  start: number;
  size: number;
  /** from the extended boot record to the logical partition behind it; 0 for all others */
  lead: number;
  mobility: Mobility;
  /** lies on the target already and stays as it is */
  frozen: boolean;
  partition: ImagePartition | null;
}

export interface Range {
  start: number;
  end: number;
}

/** Where partitions may lie: behind the primary table, before the backup. Bytes; `end` is the first byte behind. */
export const usableRange = (
  table: ImageDisk['table'],
  disk: { size: number; logicalSectorSize: number },
): Range => {
  const { size, logicalSectorSize } = disk;
  if (table === 'gpt') return gptUsable(size, logicalSectorSize);
  const whole = wholeSectors(size, logicalSectorSize);
  if (table === 'none') return { start: 0, end: whole };
  return { start: logicalSectorSize, end: whole };
};

/** Smallest disk whose usable range ends at `end` or later. */
export const diskSizeFor = (table: ImageDisk['table'], end: number, logicalSectorSize: number): number => {
  if (table !== 'gpt') return end;
  const probe = 1024 * MIB;
  return end + probe - gptUsable(probe, logicalSectorSize).end;
};

/** Everything on the image's disk that takes room, in order of place. */
export const itemsOf = (disk: ImageDisk): Item[] => {
  const chain = inOrder(disk);
  const items = disk.partitions.map((partition): Item => {
    const { name, start, size, bootRecord } = partition;
    const lead = chain && bootRecord !== null ? start - bootRecord : 0;
    const mobility = bootRecord !== null && !chain ? 'pinned' : mobilityOf(partition, disk);
    return { name, start, size, lead, mobility, frozen: false, partition };
  });
  return [...items, ...loneRecords(disk, chain)].sort((a, b) => a.start - a.lead - (b.start - b.lead));
};

/** Fixed roles keep their size, whatever the disk has. */
export const hasFixedSize = (role: PartitionRole): boolean => fixedRoles.has(role);

const fixedRoles: ReadonlySet<PartitionRole> = new Set([
  'esp',
  'bios-boot',
  'msr',
  'recovery',
  'oem',
  'swap',
]);

/**
 * Who counts on a place: GRUB's boot code on the blocks of its BIOS boot partition; code in an MBR on those of
 * the partition marked bootable; Windows on MBR, whose BCD and drive letters are keyed on disk signature and
 * offset. On GPT both go by GUID. Its recovery environment is found again by reagentc. Vendors' partitions,
 * unknown ones and the ESP (an EFI boot entry holds its first sector) stay where they are as long as they can.
 */
const mobilityOf = (partition: ImagePartition, disk: ImageDisk): Mobility => {
  const { role, attributes } = partition;
  if (disk.table === 'none' || role === 'bios-boot') return 'pinned';
  if (disk.table === 'dos') {
    if (attributes === 'bootable') return 'pinned';
    if (hasWindows(disk) && role !== 'swap') return role === 'recovery' ? 'stays' : 'pinned';
  }
  return role === 'swap' || role === 'recovery' || role === 'os' || role === 'data' ? 'free' : 'stays';
};

/** Whether Windows may count on this disk; on MBR its partition types alone say so. */
export const hasWindows = (disk: ImageDisk): boolean =>
  disk.partitions.some(({ type, role, filesystem }) =>
    disk.table === 'dos'
      ? type === '07' || type === '27' || isWindowsContent(filesystem?.type)
      : role === 'msr' ||
        type === 'de94bba4-06d1-4d40-a16a-bfd50179d6ac' ||
        (role === 'os' && isWindowsContent(filesystem?.type)) ||
        filesystem?.type === 'BitLocker',
  );

const isWindowsContent = (filesystem: string | undefined): boolean =>
  filesystem === 'ntfs' || filesystem === 'BitLocker';

/** Each boot record in the gap right before its own logical partition, the first one at the container's first byte. */
const inOrder = ({ extended, partitions }: ImageDisk): boolean => {
  if (!extended) return false;
  const logical = partitions
    .filter(({ bootRecord }) => bootRecord !== null)
    .sort((a, b) => a.number - b.number);
  let end = extended.start;
  for (const [index, { start, size, bootRecord }] of logical.entries()) {
    if (bootRecord === null || bootRecord < end || bootRecord >= start) return false;
    if (index === 0 && bootRecord !== extended.start) return false;
    end = start + size;
  }
  return true;
};

/** Boot records that do not go with the partition behind them, and a container that holds none at all. */
const loneRecords = (disk: ImageDisk, chain: boolean): Item[] => {
  const { extended, partitions, logicalSectorSize } = disk;
  if (!extended) return [];
  const alone = { lead: 0, mobility: 'pinned', frozen: false, partition: null } as const;
  const records = partitions.flatMap(({ bootRecord }) => (bootRecord === null ? [] : [bootRecord]));
  if (records.length === 0) {
    return [{ name: 'extended', start: extended.start, size: extended.size, ...alone }];
  }
  if (chain) return [];
  return [...new Set([extended.start, ...records])].map((start) => ({
    name: 'ebr',
    start,
    size: logicalSectorSize,
    ...alone,
  }));
};

export interface Placed {
  start: number;
  size: number;
  bootRecord: number | null;
}

/**
 * Where the item begins when what lies before it ends at `end`, in its old place if that is still free and not
 * further away than needed. A boot record keeps its distance, up to 1 MiB.
 */
export const placeBehind = (item: Item, end: number): Placed => {
  const { start, size, lead } = item;
  const next = alignUp(end + Math.min(lead, MIB));
  if (start - lead >= end && start <= next) return unmoved(item);
  return { start: next, size, bootRecord: lead > 0 ? next - Math.min(lead, MIB) : null };
};

export const unmoved = ({ start, size, lead, partition }: Item): Placed => ({
  start,
  size,
  bootRecord: lead > 0 ? start - lead : (partition?.bootRecord ?? null),
});

/**
 * The container around its logical partitions: from the first boot record to the end of the last one, and as
 * far as it reached before where nothing else lies there.
 */
export const placeExtended = (
  disk: ImageDisk,
  items: readonly Item[],
  placed: readonly Placed[],
  usableEnd: number,
): ImageDisk['extended'] => {
  const { extended } = disk;
  if (!extended) return null;
  const inside = placed.filter(({ bootRecord }) => bootRecord !== null);
  if (inside.length === 0) return extended;
  const lone = placed.filter((_place, index) => items[index]?.name === 'ebr');
  const first = Math.min(
    ...inside.map(({ bootRecord }) => bootRecord ?? 0),
    ...lone.map(({ start }) => start),
  );
  const end = Math.max(...[...inside, ...lone].map(({ start, size }) => start + size));
  const behind = placed.filter((place) => place.start >= end).map(({ start }) => start);
  const limit = Math.min(usableEnd, ...behind);
  return {
    ...extended,
    start: first,
    size: Math.max(end, Math.min(extended.start + extended.size, limit)) - first,
  };
};

export const alignUp = (bytes: number): number => Math.ceil(bytes / MIB) * MIB;

export const alignDown = (bytes: number): number => Math.floor(bytes / MIB) * MIB;

export const wholeSectors = (bytes: number, logicalSectorSize: number): number =>
  Math.floor(bytes / logicalSectorSize) * logicalSectorSize;
