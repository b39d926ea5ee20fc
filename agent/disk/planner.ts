import { ImagingError } from '../errors.ts';
import { driverFor } from '../filesystem/index.ts';
import type { DiskFacts, Firmware, ImageDisk, ImagePartition, Manifest, Plan } from '../protocol/index.ts';
import { freshIdentity } from './fresh-identity.ts';
import { growLayout } from './grow-layout.ts';
import {
  diskSizeFor,
  hasFixedSize,
  hasWindows,
  type Item,
  itemsOf,
  MBR_SECTORS,
  type Placed,
  placeExtended,
  type Range,
  unmoved,
  usableRange,
} from './layout.ts';
import { layoutProblem } from './layout-check.ts';
import { warningsOf } from './plan-warnings.ts';
import { movesOf, planned, unusedRanges } from './planned.ts';
import { type Kept, keepPresent, planIntoPresent } from './planner-present.ts';
import type { DiskTable } from './table.ts';

export interface PlanOptions {
  /** how the target machine boots */
  firmware: Firmware;
  grow: boolean;
  /** number of the one partition that takes all growth; default: in proportion to their sizes */
  growPartition?: number;
  /** write these partitions only, into the layout that the disk has: needs `present` */
  partitions?: readonly number[];
  /** leave these partitions as they lie on the disk: needs `present` */
  keep?: readonly number[];
  /** the table that the target has now, for `partitions` and `keep` */
  present?: DiskTable;
  /**
   * fresh GUIDs for disk and partitions, or a fresh MBR signature, all derived from this text: the same text
   * (the task's id) gives the same identity, so that a second attempt goes on with the plan of the first
   */
  newIdentity?: string;
  /** `d1`…; needed only where the image has several disks */
  imageDisk?: string;
  /** whether a partition's content can be grown; default: what agent/filesystem has drivers for */
  growable?: (partition: ImagePartition) => boolean;
}

/**
 * What a deploy will do to one disk, from image, disk and options alone: no device is looked at. Partitions keep
 * their places; on a larger disk those that can grow share the new space (growLayout).
 *
 * @throws ImagingError TARGET_TOO_SMALL (`neededBytes` and `availableBytes` in details), OPTION_REFUSED,
 *   SECTOR_SIZE_MISMATCH, FIRMWARE_MISMATCH, LAYOUT_UNSUPPORTED, IMAGE_INVALID
 */
export const planDeploy = (manifest: Manifest, target: DiskFacts, options: PlanOptions): Plan => {
  const disk = pickImageDisk(manifest, options.imageDisk);
  if (manifest.disks.length === 1 || boots(disk)) assertFirmware(manifest, options.firmware);
  assertSectorSize(disk, target);
  const problem = layoutProblem(disk);
  if (problem) throw new ImagingError('IMAGE_INVALID', `Cannot plan: ${problem}`);
  assertOptions(manifest, disk, options);
  const header = headerOf(manifest, disk, target);
  const growable = growableIn(options);
  if (options.partitions) {
    return { ...header, ...planIntoPresent(disk, target, options.partitions, options, growable) };
  }

  const usable = usableRange(disk.table, target);
  const layOut = (items: readonly Item[]): Placed[] => {
    assertFits(disk, target, items, usable);
    return options.grow && target.size > disk.size
      ? growOn(disk, target, items, usable, options, growable)
      : items.map(unmoved);
  };
  const { items, places, kept } = options.keep
    ? keepPresent(disk, options.keep, options, layOut)
    : { ...laidOut(itemsOf(disk), layOut), kept: [] };
  const written = items.flatMap((item, index) => {
    const place = places[index];
    const isKept = kept.some(({ name }) => name === item.name);
    return item.partition && place && !isKept ? [planned(item.partition, place)] : [];
  });
  const plan: Plan = {
    ...header,
    oldTable: options.keep ? 'replaced' : 'removed',
    extended: placeExtended(disk, items, places, usable.end),
    partitions: written,
    kept: kept.map(({ partition }) => partition),
    moved: movesOf(disk, written),
    unused: unusedRanges(
      disk.table,
      written,
      kept.map(({ partition }) => partition),
      usable,
      target,
    ),
    warnings: [],
  };
  const named = options.newIdentity === undefined ? plan : freshIdentity(plan, options.newIdentity);
  return { ...named, warnings: [...warningsOf(disk, target, named, options), ...kept.flatMap(keptWarnings)] };
};

const keptWarnings = ({ warning }: Kept): string[] => (warning ? [warning] : []);

const laidOut = (items: Item[], layOut: (items: readonly Item[]) => Placed[]) => ({
  items,
  places: layOut(items),
});

const headerOf = (manifest: Manifest, disk: ImageDisk, target: DiskFacts) => ({
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
});

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

/** Of several disks only those with something to boot from have to suit the machine's firmware. */
const boots = ({ partitions }: ImageDisk): boolean =>
  partitions.some(
    ({ role, attributes }) =>
      role === 'esp' || role === 'bios-boot' || role === 'os' || attributes === 'bootable',
  );

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

const refused = (what: string, reason: string): ImagingError =>
  new ImagingError('OPTION_REFUSED', `Cannot ${what}: ${reason}`);

/** Options that contradict each other or the image; what depends on the disk is found later. */
const assertOptions = (manifest: Manifest, disk: ImageDisk, options: PlanOptions): void => {
  const { newIdentity, partitions, keep, growPartition, grow } = options;
  if (partitions && keep)
    throw refused('plan', 'partitions to write and partitions to keep exclude each other');
  if (newIdentity !== undefined) {
    const what = 'give the disk a new identity';
    if (partitions) throw refused(what, 'the partition table stays as it is');
    if (disk.table === 'none') throw refused(what, 'it has no partition table');
    if (hasWindows(disk) || /windows/i.test(manifest.os?.name ?? '')) {
      throw refused(what, 'the boot configuration of Windows names its disk and partitions by the old one');
    }
  }
  if (growPartition === undefined) return;
  const what = `grow partition ${growPartition}`;
  const partition = disk.partitions.find(({ number }) => number === growPartition);
  if (!partition) throw refused(what, 'the image has no such partition');
  if (!grow) throw refused(what, 'the task says that nothing grows');
  if (keep?.includes(growPartition)) throw refused(what, 'it is to be kept as it is');
  if (partitions && !partitions.includes(growPartition))
    throw refused(what, 'it is not among those to write');
  const reason = whyNot(partition, options);
  if (reason) throw refused(what, reason);
};

/** A raw copy has a filesystem that was damaged, unknown or ambiguous: nothing to grow safely. */
const whyNot = (partition: ImagePartition, { growable = hasDriver }: PlanOptions): string | null => {
  const { role, method, filesystem } = partition;
  if (hasFixedSize(role)) return `partitions of this role (${role}) keep their size`;
  if (growable(partition) && role !== 'unknown') return null;
  if (method === 'raw') return 'it is kept whole, without regard to what is in it';
  return `nothing can grow ${filesystem?.type || 'what it holds'}`;
};

/** A physical volume of LVM takes what it is given, and hands it to the volumes in it (agent/volumes). */
const hasDriver = ({ method, filesystem }: ImagePartition): boolean =>
  method === 'used' &&
  (filesystem?.type === 'LVM2_member' || driverFor(filesystem?.type ?? '')?.growable === true);

const growableIn =
  (options: PlanOptions) =>
  (partition: ImagePartition): boolean =>
    whyNot(partition, options) === null;

const assertFits = (
  disk: ImageDisk,
  target: DiskFacts,
  items: readonly Item[],
  usable: { end: number },
): void => {
  const last = items.toSorted((a, b) => b.start + b.size - (a.start + a.size))[0];
  const end = last ? last.start + last.size : 0;
  if (end <= usable.end) return;
  const neededBytes = diskSizeFor(disk.table, end, disk.logicalSectorSize);
  throw new ImagingError(
    'TARGET_TOO_SMALL',
    `Cannot deploy: ${target.name} has ${target.size} bytes, the image needs ${neededBytes} (its last partition is ${last?.name})`,
    { details: { neededBytes, availableBytes: target.size, partition: last?.name ?? null } },
  );
};

const growOn = (
  disk: ImageDisk,
  target: DiskFacts,
  items: readonly Item[],
  usable: Range,
  options: PlanOptions,
  growable: (partition: ImagePartition) => boolean,
): Placed[] => {
  const canGrow = ({ partition, frozen }: Item): boolean =>
    partition !== null && !frozen && growable(partition);
  const only = items.find(
    ({ partition }) => options.growPartition !== undefined && partition?.number === options.growPartition,
  );
  if (disk.table === 'none') {
    return items.map((item) => (canGrow(item) ? { ...unmoved(item), size: usable.end } : unmoved(item)));
  }
  const mbrEnd = (MBR_SECTORS - 1) * target.logicalSectorSize;
  const limit = disk.table === 'dos' ? Math.min(usable.end, mbrEnd) : usable.end;
  return growLayout(items, { limit, canGrow, ...(only ? { only } : {}) });
};
