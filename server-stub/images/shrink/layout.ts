import { hasFixedSize } from '../../../agent/disk/layout.ts';
import { shrinkLayout } from '../../../agent/disk/shrink-layout.ts';
import { hasCode, ImagingError, isImagingError } from '../../../agent/errors.ts';
import { shrinkerFor } from '../../../agent/filesystem/shrink.ts';
import type { ImageDisk, ImagePartition, Manifest } from '../../../agent/protocol/index.ts';

/** Largest size of each disk of an image, bytes, by its name (`d1`); disks that are not named keep their size. */
export type Targets = Readonly<Record<string, number>>;

/** The disks of the smaller version: as the manifest will have them, but with the content of the larger one. */
export interface ShrinkPlan {
  disks: ImageDisk[];
  /** partitions whose filesystem is made smaller, with their new size in bytes */
  smaller: { partition: ImagePartition; size: number }[];
}

const MIB = 1024 * 1024;
/** what the smallest sensible disk has beyond the bare minimum: a system without free space does not run */
const HEADROOM = 1.1;

/**
 * Where everything goes on smaller disks. Pure.
 *
 * @throws ImagingError TARGET_TOO_SMALL (`neededBytes`, `availableBytes`, `disk` in details; the message names what
 *   keeps its size and why), OPTION_REFUSED (nothing is to be made smaller, no such disk)
 */
export const planShrink = (manifest: Manifest, targets: Targets): ShrinkPlan => {
  const names = manifest.disks.map(({ name }) => name);
  const unknown = Object.keys(targets).find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw refused(`${nameOf(manifest)} has no disk ${unknown} (${names.join(', ')})`);
  }
  const plan: ShrinkPlan = { disks: [], smaller: [] };
  for (const disk of manifest.disks) {
    const target = targets[disk.name];
    if (target === undefined || target >= disk.size) {
      plan.disks.push(disk);
      continue;
    }
    const shrunk = shrinkDisk(manifest, disk, target);
    plan.disks.push(shrunk);
    for (const partition of disk.partitions) {
      const size = shrunk.partitions.find(({ name }) => name === partition.name)?.size ?? partition.size;
      if (size < partition.size && partition.method === 'used') plan.smaller.push({ partition, size });
    }
  }
  if (plan.disks.every((disk, at) => disk === manifest.disks[at])) {
    const sizes = manifest.disks.map(({ name, size }) => `${name} ${size}`).join(', ');
    throw refused(`${nameOf(manifest)} is as small already (${sizes} bytes)`);
  }
  return plan;
};

/** The smallest disks that leave a system some room, in whole MiB; bytes by disk. @throws ImagingError OPTION_REFUSED */
export const smallestTargets = (manifest: Manifest): Targets => {
  const entries = manifest.disks.map((disk) => {
    const needed = Math.ceil((neededBytes(disk) * HEADROOM) / MIB) * MIB;
    return [disk.name, Math.min(needed, disk.size)] as const;
  });
  if (entries.some(([name, size]) => size < sizeOf(manifest, name))) return Object.fromEntries(entries);
  throw refused(`${nameOf(manifest)} cannot be made smaller${listOf(manifest.disks)}`);
};

const neededBytes = (disk: ImageDisk): number => {
  try {
    // no image fits here: the refusal tells what would do
    shrinkLayout(workable(disk), MIB);
  } catch (error) {
    const needed = isImagingError(error) ? error.details['neededBytes'] : undefined;
    if (hasCode(error, 'TARGET_TOO_SMALL') && typeof needed === 'number') return needed;
    throw error;
  }
  return MIB;
};

const shrinkDisk = (manifest: Manifest, disk: ImageDisk, target: number): ImageDisk => {
  const { size, extended, partitions } = layoutOf(manifest, disk, target);
  return {
    ...disk,
    size,
    extended,
    partitions: disk.partitions.map((partition) => {
      const place = partitions.find(({ name }) => name === partition.name);
      if (!place)
        throw new ImagingError('INTERNAL', `Cannot shrink: the layout leaves out ${partition.name}`);
      return { ...partition, start: place.start, size: place.size, bootRecord: place.bootRecord };
    }),
  };
};

const layoutOf = (manifest: Manifest, disk: ImageDisk, target: number) => {
  try {
    return shrinkLayout(workable(disk), target);
  } catch (error) {
    if (!hasCode(error, 'TARGET_TOO_SMALL') || !isImagingError(error)) throw error;
    const needed = error.details['neededBytes'];
    throw new ImagingError(
      'TARGET_TOO_SMALL',
      `Cannot fit ${nameOf(manifest)} into ${target} bytes: made as small as it can be it needs ${String(needed)}${listOf([disk])}`,
      {
        details: { ...error.details, availableBytes: target, disk: disk.name, partitions: keptSizes(disk) },
        cause: error,
      },
    );
  }
};

/** The disk with what cannot be made smaller on this server marked so: without a minimum it keeps its size. */
const workable = (disk: ImageDisk): ImageDisk => ({
  ...disk,
  partitions: disk.partitions.map((partition) =>
    partition.filesystem && whyNot(partition) !== null
      ? { ...partition, filesystem: { ...partition.filesystem, minimumBytes: null } }
      : partition,
  ),
});

/** Why a partition keeps its size, to go on with after its name; null where it can be made smaller. */
export const whyNot = ({ method, reason, filesystem, damaged, role }: ImagePartition): string | null => {
  const type = filesystem?.type ?? '';
  if (method === 'recreate') return `is ${type}, which keeps its size`;
  if (method === 'raw') return `is kept whole${reason ? ` (${reason})` : ''}`;
  // where the holes are is told by their place, and places change
  if (damaged.length > 0) return 'has sectors that could not be read at capture';
  if (hasFixedSize(role)) return `is the ${role} partition, which keeps its size`;
  const called = spoken[type] ?? type;
  // LVM is put together anew on the server, by nobody's tool
  if (type !== 'LVM2_member') {
    const shrinker = shrinkerFor(type);
    if (!shrinker) return `is ${called}, which cannot be made smaller`;
    const obstacle = shrinker.obstacle();
    if (obstacle !== null) return `is ${called}, ${obstacle}`;
  }
  return filesystem?.minimumBytes === null
    ? `is ${called}, and ${filesystem.minimumReason ?? 'nobody can say how small it may be'}`
    : null;
};

const spoken: Record<string, string> = {
  vfat: 'FAT',
  exfat: 'exFAT',
  xfs: 'XFS',
  f2fs: 'F2FS',
  ntfs: 'NTFS',
  LVM2_member: 'a physical volume of LVM',
  crypto_LUKS: 'encrypted (LUKS)',
};

/** Partitions that keep their size, the largest first: they are what a refusal is about. */
const keptSizes = (disk: ImageDisk): { name: string; size: number; reason: string }[] =>
  disk.partitions
    .map((partition) => ({ name: partition.name, size: partition.size, reason: whyNot(partition) }))
    .filter((kept): kept is { name: string; size: number; reason: string } => kept.reason !== null)
    .toSorted((a, b) => b.size - a.size);

const listOf = (disks: readonly ImageDisk[]): string => {
  const kept = disks.flatMap(keptSizes).slice(0, 4);
  const minimums = disks
    .flatMap(({ partitions }) => partitions)
    .filter((partition) => whyNot(partition) === null)
    .map(({ name, filesystem }) => `${name} needs ${filesystem?.minimumBytes} bytes`);
  const parts = [...minimums, ...kept.map(({ name, size, reason }) => `${name} (${size} bytes) ${reason}`)];
  return parts.length === 0 ? '' : `: ${parts.join('; ')}`;
};

const sizeOf = (manifest: Manifest, name: string): number =>
  manifest.disks.find((disk) => disk.name === name)?.size ?? 0;

const nameOf = ({ image, version }: Manifest): string => `${image}@${version}`;

const refused = (reason: string): ImagingError =>
  new ImagingError('OPTION_REFUSED', `Cannot make a smaller version: ${reason}`);
