import { ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';
import type { Plan } from '../protocol/index.ts';
import { assertClaim, type DiskClaim } from './claim.ts';
import { kernelNameOf, listNames, readAttribute, readNumber, sysfsOf } from './sysfs.ts';
import type { DiskTable } from './table.ts';

export { flushDevice } from './device-io.ts';

interface Options {
  signal?: AbortSignal;
}

/** BLKPG counts in units of 512 bytes, whatever the disk's sectors are */
const UNIT = 512;

/**
 * Tell the kernel of the plan's partitions before a table exists, so that filesystem tools have
 * devices while the disk itself cannot boot. Resolves with name in the image (`p1`) -> device node,
 * each writable. An image of a whole disk without a table: its one content is the disk itself.
 *
 * @throws ImagingError TOOL_FAILED, DISK_WRITE_FAILED
 */
export const addPartitions = async (
  claim: DiskClaim,
  plan: Plan,
  options: Options = {},
): Promise<Map<string, string>> => {
  assertClaim(claim);
  if (plan.table === 'none') return new Map(plan.partitions.map(({ name }) => [name, claim.path]));
  await removePartitions(claim, options);
  const nodes = new Map<string, string>();
  for (const { name, number, start, size } of plan.partitions) {
    const node = await addPartition(claim.path, { number, start, size }, options);
    nodes.set(name, node);
  }
  return nodes;
};

/**
 * Make the kernel forget all partitions of the disk, and their page caches with them.
 *
 * @throws ImagingError TOOL_FAILED: one of them is in use
 */
export const removePartitions = async (claim: DiskClaim, options: Options = {}): Promise<void> => {
  assertClaim(claim);
  for (const { number } of await knownPartitions(claim.path)) {
    await run('delpart', [claim.path, String(number)], options);
  }
  const left = await knownPartitions(claim.path);
  if (left.length === 0) return;
  throw new ImagingError(
    'DISK_IN_USE',
    `Cannot remove the partitions of ${claim.path}: ${left.length} remain`,
  );
};

/**
 * After the table was written: make the kernel's partitions those of the table. What agrees stays as
 * it is, open files and all.
 */
export const syncPartitions = async (
  claim: DiskClaim,
  table: DiskTable,
  options: Options = {},
): Promise<void> => {
  assertClaim(claim);
  const known = await knownPartitions(claim.path);
  for (const one of known) {
    if (!table.partitions.some((wanted) => isSame(one, wanted))) {
      await run('delpart', [claim.path, String(one.number)], options);
    }
  }
  for (const wanted of table.partitions) {
    if (!known.some((one) => isSame(one, wanted))) await addPartition(claim.path, wanted, options);
  }
};

interface Place {
  number: number;
  start: number;
  size: number;
}

const isSame = (a: Place, b: Place): boolean =>
  a.number === b.number && a.start === b.start && a.size === b.size;

/** Device node of a partition: sda1, but nvme0n1p1 and loop0p1. */
export const partitionPath = (disk: string, number: number): string =>
  `${disk}${/\d$/.test(disk) ? 'p' : ''}${number}`;

const addPartition = async (disk: string, place: Place, options: Options): Promise<string> => {
  const { number, start, size } = place;
  await run('addpart', [disk, String(number), String(start / UNIT), String(size / UNIT)], options);
  const found = (await knownPartitions(disk)).find((known) => known.number === number);
  if (!found || !isSame(found, place)) {
    throw new ImagingError(
      'TOOL_FAILED',
      `Cannot add partition ${number} to ${disk}: the kernel has no such one`,
    );
  }
  const node = partitionPath(disk, number);
  await run('blockdev', ['--setrw', node], options);
  if ((await readAttribute(sysfsOf(kernelNameOf(node)), 'ro')) !== '0') {
    throw new ImagingError('DISK_WRITE_FAILED', `Cannot write to ${node}: it stays read-only`);
  }
  return node;
};

const knownPartitions = async (disk: string): Promise<Place[]> => {
  const folder = sysfsOf(kernelNameOf(disk));
  const places: Place[] = [];
  for (const name of await listNames(folder)) {
    const number = await readNumber(`${folder}/${name}`, 'partition');
    const start = await readNumber(`${folder}/${name}`, 'start');
    const size = await readNumber(`${folder}/${name}`, 'size');
    if (number === null || start === null || size === null) continue;
    places.push({ number, start: start * UNIT, size: size * UNIT });
  }
  return places;
};
