import type {
  ByteRange,
  ImageDisk,
  ImagePartition,
  MovedPartition,
  PlannedPartition,
} from '../protocol/index.ts';
import { MIB, type Placed, type Range } from './layout.ts';

/** A partition of the image at its place on the target. */
export const planned = (partition: ImagePartition, place: Placed): PlannedPartition => ({
  name: partition.name,
  number: partition.number,
  start: place.start,
  size: place.size,
  contentSize: partition.size,
  grow: place.size > partition.size,
  role: partition.role,
  method: partition.method,
  filesystem: partition.filesystem?.type ?? '',
  type: partition.type,
  uuid: partition.uuid,
  label: partition.label,
  attributes: partition.attributes,
  bootRecord: place.bootRecord,
});

/** Which partitions begin elsewhere than in the image. */
export const movesOf = (disk: ImageDisk, partitions: readonly PlannedPartition[]): MovedPartition[] =>
  partitions.flatMap(({ name, number, role, start }) => {
    const from = disk.partitions.find((one) => one.name === name)?.start ?? start;
    return from === start ? [] : [{ name, number, role, from, to: start }];
  });

/**
 * What no content covers: without the first MiB (boot code, MBR gap), the backup table, and boot records, which
 * say where the logical partitions of the present table lie until there is a new one.
 */
export const unusedRanges = (
  table: ImageDisk['table'],
  partitions: readonly PlannedPartition[],
  kept: readonly PlannedPartition[],
  usable: Range,
  target: { logicalSectorSize: number },
): ByteRange[] => {
  const taken = [...partitions, ...kept].flatMap(({ start, contentSize, bootRecord }) => [
    { start, size: contentSize },
    ...(bootRecord === null ? [] : [{ start: bootRecord, size: target.logicalSectorSize }]),
  ]);
  const ranges: ByteRange[] = [];
  let position = table === 'none' ? 0 : Math.max(MIB, usable.start);
  for (const { start, size } of taken.sort((a, b) => a.start - b.start)) {
    if (start > position) ranges.push({ start: position, size: start - position });
    position = Math.max(position, start + size);
  }
  if (usable.end > position) ranges.push({ start: position, size: usable.end - position });
  return ranges;
};
