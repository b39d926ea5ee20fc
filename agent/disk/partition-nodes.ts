import { setTimeout as sleep } from 'node:timers/promises';
import { ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';
import type { Plan } from '../protocol/index.ts';
import { assertClaim, type DiskClaim } from './claim.ts';
import { flushDevice } from './device-io.ts';
import { attachLoop, detachLoops } from './loop-nodes.ts';
import { kernelNameOf, listNames, readAttribute, readNumber, sysfsOf } from './sysfs.ts';
import type { DiskTable } from './table.ts';

export { flushDevice } from './device-io.ts';

interface Options {
  signal?: AbortSignal;
}

/** sysfs counts in units of 512 bytes, whatever the disk's sectors are */
const UNIT = 512;

/**
 * Devices for the plan's partitions while the disk has no table and cannot boot: one loop device on
 * each range of the disk. Resolves with name in the image (`p1`) ->
 * device node. An image of a whole disk without a table: its one content is the disk itself.
 *
 * Add them after the data was written, or flush them before a tool reads them: each node has a page
 * cache of its own. What tools wrote reaches the disk with `removePartitions` (writeTable does it), or
 * by flushing the node and then the disk.
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
  for (const { name, start, size } of plan.partitions) {
    nodes.set(name, await attachLoop(claim.path, { start, size }, plan.disk.logicalSectorSize, options));
  }
  return nodes;
};

/**
 * Take back what addPartitions made, with all that was written through it, and make the kernel forget
 * the partitions of the disk's table.
 *
 * @throws ImagingError DISK_IN_USE: one of them is in use
 */
export const removePartitions = async (claim: DiskClaim, options: Options = {}): Promise<void> => {
  assertClaim(claim);
  await detachLoops(claim.path, options);
  await flushDevice(claim.path, options);
  for (const { number } of await knownPartitions(claim.path)) await forget(claim.path, number, options);
};

/**
 * After the table was written: make the kernel's partitions those of the table. What agrees stays as
 * it is, open files and all.
 *
 * @throws ImagingError TOOL_FAILED, DISK_WRITE_FAILED
 */
export const syncPartitions = async (
  claim: DiskClaim,
  table: DiskTable,
  options: Options = {},
): Promise<void> => {
  assertClaim(claim);
  const { path } = claim;
  for (const one of await knownPartitions(path)) {
    // the kernel makes a tiny device of a container, so that a boot loader could be put there
    if (one.number === table.extended?.number && one.start === table.extended.start) continue;
    if (!table.partitions.some((wanted) => isSame(one, wanted))) await forget(path, one.number, options);
  }
  await addMissing(path, table, options);
  const known = await knownPartitions(path);
  for (const wanted of table.partitions) {
    const { number } = wanted;
    if (!known.some((one) => isSame(one, wanted))) {
      throw new ImagingError(
        'TOOL_FAILED',
        `Cannot add partition ${number} of ${path}: the kernel has no such one`,
      );
    }
    const node = partitionPath(path, number);
    await run('blockdev', ['--setrw', node], options);
    if ((await readAttribute(sysfsOf(kernelNameOf(node)), 'ro')) !== '0') {
      throw new ImagingError('DISK_WRITE_FAILED', `Cannot write to ${node}: it stays read-only`);
    }
  }
};

/**
 * One by one, since a new reading of the whole table needs every partition unused. partx 2.41 does not follow a
 * chain of logical partitions that leads backwards; the kernel does.
 */
const addMissing = async (path: string, table: DiskTable, options: Options): Promise<void> => {
  const missing = async () => {
    const known = await knownPartitions(path);
    return table.partitions.filter((wanted) => !known.some((one) => isSame(one, wanted)));
  };
  for (const { number } of await missing()) {
    await run('partx', ['--add', '--nr', `${number}:${number}`, path], { ...options, okExitCodes: [0, 1] });
  }
  if ((await missing()).length === 0) return;
  // not for loop devices, which are not asked to look for partitions
  await run('blockdev', ['--rereadpt', path], { ...options, okExitCodes: [0, 1] });
};

/** Device node of a partition: sda1, but nvme0n1p1 and loop0p1. */
export const partitionPath = (disk: string, number: number): string =>
  `${disk}${/\d$/.test(disk) ? 'p' : ''}${number}`;

interface Place {
  number: number;
  start: number;
  size: number;
}

const isSame = (a: Place, b: Place): boolean =>
  a.number === b.number && a.start === b.start && a.size === b.size;

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

/** A prober (udev, lsblk) may hold a node for a moment; who holds it longer uses it. */
const forget = async (disk: string, number: number, options: Options): Promise<void> => {
  const node = partitionPath(disk, number);
  for (let tries = 0; tries < 60; tries++) {
    if (tries > 0) await sleep(50, undefined, options);
    const args = ['--delete', '--nr', `${number}:${number}`, disk];
    await run('partx', args, { ...options, okExitCodes: [0, 1] });
    if ((await knownPartitions(disk)).every((known) => known.number !== number)) return;
  }
  throw new ImagingError('DISK_IN_USE', `Cannot remove ${node}: it is in use`, { details: { path: node } });
};
