import { ImagingError } from '../errors.ts';
import { driverFor } from '../filesystem/index.ts';
import type {
  ByteRange,
  DiskFacts,
  Firmware,
  ImageDisk,
  ImagePartition,
  Manifest,
  Plan,
  PlannedPartition,
} from '../protocol/index.ts';
import { gptUsable } from './gpt.ts';

export interface PlanOptions {
  /** how the target machine boots */
  firmware: Firmware;
  grow: boolean;
  /** `d1`…; needed only where the image has several disks */
  imageDisk?: string;
  /** whether a filesystem (libblkid's name) can be grown; default: what agent/filesystem has drivers for */
  growable?: (filesystem: string) => boolean;
}

const MIB = 1024 * 1024;
/** MBR holds 32-bit sector numbers */
const MBR_SECTORS = 2 ** 32;
const extendedTypes = new Set(['05', '0f', '85', 'c5']);

/**
 * What a deploy will do to one disk, from image and disk alone: no device is looked at. Partitions
 * keep their places; the last one that can grow takes the free space behind it, and swap or recovery
 * partitions in its way move to the end of the disk.
 *
 * @throws ImagingError TARGET_TOO_SMALL (`neededBytes` and `availableBytes` in details),
 *   SECTOR_SIZE_MISMATCH, FIRMWARE_MISMATCH, LAYOUT_UNSUPPORTED, IMAGE_INVALID
 */
export const planDeploy = (manifest: Manifest, target: DiskFacts, options: PlanOptions): Plan => {
  const { growable = canBeGrown } = options;
  const disk = pickImageDisk(manifest, options.imageDisk);
  assertFirmware(manifest, options.firmware);
  assertSectorSize(disk, target);
  assertLayout(disk);
  const usable = usableRange(disk.table, target);
  assertFits(disk, target, usable);

  const placed: PlannedPartition[] = [...disk.partitions].sort((a, b) => a.start - b.start).map(unchanged);
  const partitions =
    options.grow && disk.table !== 'none' ? growLast(placed, disk, usable.end, growable) : placed;
  return {
    image: manifest.image,
    version: manifest.version,
    imageDisk: disk.name,
    disk: {
      serial: target.serial ?? '',
      wwn: target.wwn ?? '',
      size: target.size,
      logicalSectorSize: target.logicalSectorSize,
    },
    table: disk.table,
    tableId: disk.tableId,
    partitions,
    unused: disk.table === 'none' ? [] : unusedRanges(partitions, usable),
    warnings: warningsOf(disk, target, partitions, usable, options.grow),
  };
};

/** A physical volume of LVM takes what it is given, and hands it to the volumes in it (agent/volumes). */
const canBeGrown = (filesystem: string): boolean =>
  filesystem === 'LVM2_member' || driverFor(filesystem)?.growable === true;

const pickImageDisk = (manifest: Manifest, name: string | undefined): ImageDisk => {
  const disk = name === undefined ? manifest.disks[0] : manifest.disks.find((one) => one.name === name);
  if (disk && (name !== undefined || manifest.disks.length === 1)) return disk;
  const names = manifest.disks.map((one) => one.name).join(', ');
  throw new ImagingError(
    'LAYOUT_UNSUPPORTED',
    name === undefined
      ? `Cannot plan: the image has several disks (${names}) and none is named`
      : `Cannot plan: the image has no disk ${name} (${names})`,
  );
};

const assertFirmware = (manifest: Manifest, firmware: Firmware): void => {
  if (manifest.firmware === firmware) return;
  throw new ImagingError(
    'FIRMWARE_MISMATCH',
    `Cannot deploy: the image boots by ${spoken(manifest.firmware)}, this machine by ${spoken(firmware)}`,
    { details: { image: manifest.firmware, machine: firmware } },
  );
};

const spoken = (firmware: Firmware): string => firmware.toUpperCase();

const assertSectorSize = (disk: ImageDisk, target: DiskFacts): void => {
  if (disk.logicalSectorSize === target.logicalSectorSize) return;
  const [image, machine] = [disk.logicalSectorSize, target.logicalSectorSize];
  throw new ImagingError(
    'SECTOR_SIZE_MISMATCH',
    `Cannot deploy: the image has sectors of ${image} bytes, ${target.name} of ${machine}`,
    { details: { image, disk: machine } },
  );
};

/** What no plan may be made from: a manifest is somebody else's data. */
const assertLayout = (disk: ImageDisk): void => {
  const invalid = (reason: string) => new ImagingError('IMAGE_INVALID', `Cannot plan: ${reason}`);
  const numbers = new Set<number>();
  const names = new Set<string>();
  let end = 0;
  for (const partition of [...disk.partitions].sort((a, b) => a.start - b.start)) {
    const { name, number, start, size } = partition;
    if (numbers.has(number) || names.has(name)) throw invalid(`partition ${name} appears twice`);
    numbers.add(number);
    names.add(name);
    if (size === 0) throw invalid(`partition ${name} is empty`);
    if (start % disk.logicalSectorSize !== 0 || size % disk.logicalSectorSize !== 0) {
      throw invalid(`partition ${name} does not begin and end at a sector`);
    }
    if (start < end) throw invalid(`partition ${name} overlaps another`);
    end = start + size;
    if (disk.table === 'dos' && extendedTypes.has(partition.type)) {
      throw new ImagingError('LAYOUT_UNSUPPORTED', 'Cannot deploy: logical partitions are not supported');
    }
    if (disk.table === 'dos' && number > 4) throw invalid(`partition ${name} has no place in an MBR`);
  }
  if (end > disk.size) throw invalid('its partitions reach beyond its disk');
  if (disk.table === 'none' && (disk.partitions.length !== 1 || disk.partitions[0]?.start !== 0)) {
    throw invalid('a disk without a table has one content, from its first byte');
  }
  const usable = usableRange(disk.table, disk);
  if (disk.partitions.some(({ start }) => start < usable.start)) {
    throw invalid('a partition begins inside the partition table');
  }
};

/** Where partitions may lie: behind the primary table, before the backup. */
const usableRange = (
  table: ImageDisk['table'],
  disk: { size: number; logicalSectorSize: number },
): { start: number; end: number } => {
  const { size, logicalSectorSize } = disk;
  if (table === 'gpt') return gptUsable(size, logicalSectorSize);
  const whole = Math.floor(size / logicalSectorSize) * logicalSectorSize;
  if (table === 'none') return { start: 0, end: whole };
  return { start: logicalSectorSize, end: Math.min(whole, (MBR_SECTORS - 1) * logicalSectorSize) };
};

const assertFits = (disk: ImageDisk, target: DiskFacts, usable: { end: number }): void => {
  const last = [...disk.partitions].sort((a, b) => b.start + b.size - (a.start + a.size))[0];
  const end = last ? last.start + last.size : 0;
  if (end <= usable.end) return;
  const neededBytes =
    end + (Math.floor(target.size / target.logicalSectorSize) * target.logicalSectorSize - usable.end);
  throw new ImagingError(
    'TARGET_TOO_SMALL',
    `Cannot deploy: ${target.name} has ${target.size} bytes, the image needs ${neededBytes} (its last partition is ${last?.name})`,
    { details: { neededBytes, availableBytes: target.size, partition: last?.name ?? null } },
  );
};

const unchanged = (partition: ImagePartition): PlannedPartition => ({
  name: partition.name,
  number: partition.number,
  start: partition.start,
  size: partition.size,
  contentSize: partition.size,
  grow: false,
  role: partition.role,
  method: partition.method,
  filesystem: partition.filesystem?.type ?? '',
  type: partition.type,
  uuid: partition.uuid,
  label: partition.label,
  attributes: partition.attributes,
});

/**
 * Partitions sorted by start. Walks back from the end of the disk to the last one that can grow,
 * pushing what may move to the end. Chunks count from a partition's first byte, so a move costs
 * nothing. Nothing changes unless at least 1 MiB is won.
 */
const growLast = (
  partitions: readonly PlannedPartition[],
  disk: ImageDisk,
  usableEnd: number,
  growable: (filesystem: string) => boolean,
): PlannedPartition[] => {
  const index = partitions.findLastIndex((partition) => canGrow(partition, growable));
  const last = partitions[index];
  if (!last) return [...partitions];
  let limit = alignDown(usableEnd);
  const behind: PlannedPartition[] = [];
  for (const partition of partitions.slice(index + 1).reverse()) {
    const start = alignDown(limit - partition.size);
    const moved = canMove(partition, disk) && start > partition.start ? { ...partition, start } : partition;
    behind.unshift(moved);
    limit = alignDown(moved.start);
  }
  const size = limit - last.start;
  if (size - last.size < MIB) return [...partitions];
  return [...partitions.slice(0, index), { ...last, size, grow: true }, ...behind];
};

/** A raw copy has a filesystem that was damaged, unknown or ambiguous: nothing to grow safely. */
const canGrow = (partition: PlannedPartition, growable: (filesystem: string) => boolean): boolean =>
  (partition.role === 'os' || partition.role === 'data') &&
  partition.method === 'used' &&
  growable(partition.filesystem);

/**
 * Swap and recovery only: nothing refers to their place on the disk. On MBR disks with Windows the
 * boot configuration names partitions by their offset.
 */
const canMove = (partition: PlannedPartition, disk: ImageDisk): boolean =>
  (partition.role === 'swap' || partition.role === 'recovery') && !(disk.table === 'dos' && hasWindows(disk));

const hasWindows = (disk: ImageDisk): boolean =>
  disk.partitions.some(
    ({ type, filesystem }) => type === '07' || type === '27' || filesystem?.type === 'ntfs',
  );

/** What no content covers, the first MiB (boot code, MBR gap) and the backup table left out. */
const unusedRanges = (
  partitions: readonly PlannedPartition[],
  usable: { start: number; end: number },
): ByteRange[] => {
  const ranges: ByteRange[] = [];
  let position = Math.max(MIB, usable.start);
  for (const { start, contentSize } of [...partitions].sort((a, b) => a.start - b.start)) {
    if (start > position) ranges.push({ start: position, size: start - position });
    position = Math.max(position, start + contentSize);
  }
  if (usable.end > position) ranges.push({ start: position, size: usable.end - position });
  return ranges;
};

const warningsOf = (
  disk: ImageDisk,
  target: DiskFacts,
  partitions: readonly PlannedPartition[],
  usable: { end: number },
  grow: boolean,
): string[] => {
  const warnings: string[] = [];
  for (const partition of partitions) {
    const original = disk.partitions.find(({ name }) => name === partition.name);
    if (original && original.start !== partition.start) {
      warnings.push(`${partition.name} (${partition.role}) moves to the end of the disk`);
    }
  }
  const end = Math.max(0, ...partitions.map(({ start, size }) => start + size));
  // alignment and the table's own space are no loss worth a word
  if (grow && disk.table !== 'none' && usable.end - end >= 16 * MIB) {
    warnings.push(
      `${usable.end - end} bytes at the end of ${target.name} stay unused: no partition can take them`,
    );
  }
  if (disk.table === 'dos' && target.size > MBR_SECTORS * target.logicalSectorSize) {
    warnings.push('an MBR reaches 2^32 sectors only: the rest of the disk stays unused');
  }
  return warnings;
};

const alignDown = (bytes: number): number => Math.floor(bytes / MIB) * MIB;
