import type { ImageDisk, ImagePartition } from '../protocol/index.ts';
import { extendedTypes, MBR_SECTORS, usableRange } from './layout.ts';

/**
 * What makes a manifest's layout impossible, in words; null for a sound one. A manifest is somebody else's
 * data: nothing may be planned or written from one that contradicts itself. Pure.
 */
export const layoutProblem = (disk: ImageDisk): string | null =>
  placesProblem(disk) ?? tableProblem(disk) ?? chainProblem(disk);

const placesProblem = (disk: ImageDisk): string | null => {
  const sector = disk.logicalSectorSize;
  const [numbers, names] = [new Set<number>(), new Set<string>()];
  let end = disk.bootArea?.size ?? 0;
  for (const { name, number, start, size } of disk.partitions.toSorted((a, b) => a.start - b.start)) {
    if (numbers.has(number) || names.has(name)) return `partition ${name} appears twice`;
    numbers.add(number);
    names.add(name);
    if (size === 0) return `partition ${name} is empty`;
    if (start % sector !== 0 || size % sector !== 0)
      return `partition ${name} does not begin and end at a sector`;
    if (start < end) return `partition ${name} overlaps what lies before it`;
    end = start + size;
  }
  return end > disk.size ? 'its partitions reach beyond its disk' : null;
};

const tableProblem = (disk: ImageDisk): string | null => {
  const { table, partitions, extended } = disk;
  if (table === 'none') {
    const [only, ...others] = partitions;
    if (!only || others.length > 0 || only.start !== 0 || only.number !== 1 || disk.bootArea) {
      return 'a disk without a table has one content, from its first byte';
    }
  }
  const usable = usableRange(table, disk);
  if (partitions.some(({ start }) => start < usable.start))
    return 'a partition begins inside the partition table';
  if (partitions.some(({ start, size }) => start + size > usable.end)) {
    return 'a partition ends inside the backup partition table';
  }
  if (table !== 'dos') {
    const logical = partitions.find(({ bootRecord }) => bootRecord !== null);
    if (extended || logical) return `logical partitions in a table of kind ${table}`;
    return null;
  }
  const limit = MBR_SECTORS * disk.logicalSectorSize;
  const far = partitions.find(({ start, size }) => start >= limit || size >= limit);
  if (far) return `partition ${far.name} lies where no MBR reaches`;
  const container = partitions.find(({ type }) => extendedTypes.has(type));
  return container ? `partition ${container.name} is an extended one, which has no content` : null;
};

/** Logical partitions count from 5 in the order of the chain, each with a boot record of its own before it. */
const chainProblem = (disk: ImageDisk): string | null => {
  const { table, partitions, extended, logicalSectorSize: sector } = disk;
  if (table !== 'dos') return null;
  const stray = partitions.find(({ number, bootRecord }) => number > 4 !== (bootRecord !== null));
  if (stray) return `partition ${stray.name} has no place in an MBR`;
  const logical = partitions.filter(isLogical).sort((a, b) => a.number - b.number);
  if (!extended) return logical.length > 0 ? 'logical partitions without an extended one' : null;
  const { start, size, number, type } = extended;
  const end = start + size;
  if (!extendedTypes.has(type)) return `the extended partition is of type ${type}`;
  if (start % sector !== 0 || size % sector !== 0 || size < 2 * sector || start < sector || end > disk.size) {
    return 'the extended partition lies outside its disk or off its sectors';
  }
  if (start < (disk.bootArea?.size ?? 0)) return 'the extended partition begins inside the boot area';
  if (partitions.some((one) => one.number === number)) return `two partitions have the number ${number}`;
  for (const { name, ...one } of partitions.filter((one) => !isLogical(one))) {
    if (one.start < end && one.start + one.size > start) return `partition ${name} overlaps the extended one`;
  }
  const records = [start, ...logical.map(({ bootRecord }) => bootRecord ?? 0)];
  for (const [index, one] of logical.entries()) {
    const record = one.bootRecord ?? 0;
    if (one.number !== 5 + index)
      return `partition ${one.name} leaves a gap in the logical partitions' numbers`;
    if (record % sector !== 0 || record < start || record >= one.start || one.start + one.size > end) {
      return `partition ${one.name} or its boot record lies outside the extended one`;
    }
    // the first record may be the container's own first sector; any other has a place of its own
    if (records.indexOf(record) !== (record === start && index === 0 ? 0 : index + 1)) {
      return `two partitions share the boot record at byte ${record}`;
    }
    const covered = records.some((at) => at < one.start + one.size && at + sector > one.start);
    if (covered) return `partition ${one.name} covers a boot record`;
  }
  return null;
};

const isLogical = ({ bootRecord }: ImagePartition): boolean => bootRecord !== null;
