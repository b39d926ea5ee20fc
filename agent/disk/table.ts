import { z } from 'zod';
import { hasCode, ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';
import type { ByteRange, Plan } from '../protocol/index.ts';
import { assertClaim, type DiskClaim } from './claim.ts';
import { flushDevice, readAt, writeAt } from './device-io.ts';
import { GPT_ENTRIES_BYTES, gptUsable, isHybridMbr, readGptNames, writeGptNames } from './gpt.ts';
import { removePartitions, syncPartitions } from './partition-nodes.ts';
import { parseSfdisk, sfdiskScript } from './sfdisk.ts';

/** Bytes throughout; the fields mean what they mean in the manifest's imagePartitionSchema. */
export interface TablePartition {
  path: string;
  number: number;
  start: number;
  size: number;
  type: string;
  uuid: string;
  label: string;
  attributes: string;
}

export interface DiskTable {
  kind: 'gpt' | 'dos' | 'none';
  /** disk GUID, lower case, or MBR signature as 0x… ; empty for none */
  id: string;
  logicalSectorSize: number;
  size: number;
  /** sorted by start */
  partitions: TablePartition[];
}

interface Options {
  signal?: AbortSignal;
}

/** boot code ends where the MBR's disk signature begins; the table fills the rest of the first 512 bytes */
const BOOT_CODE_BYTES = 440;
const MBR_BYTES = 512;

/**
 * The partition table of a disk. Read-only.
 *
 * @throws ImagingError LAYOUT_UNSUPPORTED: hybrid MBR, extended partition, another kind of table, a damaged GPT
 */
export const readTable = async (path: string, options: Options = {}): Promise<DiskTable> => {
  const { size, sectorSize } = await geometry(path, options);
  try {
    const { stdout } = await run('sfdisk', ['--json', path], options);
    const table = parseSfdisk(stdout, size);
    if (table.kind === 'dos') return table;
    if (isHybridMbr(await readAt(path, 0, MBR_BYTES))) {
      throw new ImagingError('LAYOUT_UNSUPPORTED', `Cannot use ${path}: it has a hybrid MBR beside its GPT`);
    }
    const names = await readGptNames(path, table.logicalSectorSize);
    return {
      ...table,
      partitions: table.partitions.map((partition) => ({
        ...partition,
        label: names.get(partition.number) ?? '',
      })),
    };
  } catch (error) {
    if (!saysNoTable(error)) throw error;
    return { kind: 'none', id: '', logicalSectorSize: sectorSize, size, partitions: [] };
  }
};

/**
 * Make a disk forget what it held: partitions in the kernel, both GPTs, the MBR, and every signature
 * that libblkid finds on the whole disk; proved by reading again. `keep`: ranges that are never
 * touched (the plan's partitions, when an interrupted deploy goes on).
 *
 * @throws ImagingError DISK_WRITE_FAILED (something is still there), TOOL_FAILED (a partition is in use)
 */
export const removeTable = async (
  claim: DiskClaim,
  options: Options & { keep?: readonly ByteRange[] } = {},
): Promise<void> => {
  assertClaim(claim);
  const { keep = [], ...rest } = options;
  const { path } = claim;
  await removePartitions(claim, rest);
  const { size, sectorSize } = await geometry(path, rest);
  const tableBytes = 2 * sectorSize + Math.ceil(GPT_ENTRIES_BYTES / sectorSize) * sectorSize;
  const ends = [
    { start: 0, size: Math.min(tableBytes, size) },
    { start: Math.max(0, size - tableBytes + sectorSize), size: Math.min(tableBytes - sectorSize, size) },
  ].flatMap((range) => without(range, keep));
  await writeZeros(path, ends);

  // zeroing one signature can uncover another (nested or backup superblocks)
  for (let round = 0; ; round++) {
    await flushDevice(path, rest);
    const left = (await signatures(path, rest)).flatMap((range) => without(range, keep));
    if (left.length === 0) break;
    if (round === 20)
      throw notRemoved(path, `signatures remain at ${left.map(({ start }) => start).join(', ')}`);
    await writeZeros(path, left);
  }
  for (const { start, size: length } of ends) {
    if ((await readAt(path, start, length)).some((byte) => byte !== 0)) {
      throw notRemoved(path, `byte ${start} and following are not zero`);
    }
  }
  const table = await readTable(path, rest);
  if (table.kind !== 'none' && keep.length === 0)
    throw notRemoved(path, `it still has a ${table.kind} table`);
};

/**
 * Boot code and table in the plan's final form, then read again and compared field by field.
 * `bootArea`: the first bytes of the image's disk; of it bytes 0..439 are written, and on MBR disks
 * the gap before the first partition. Devices that addPartitions made are gone afterwards; those of the
 * table are there instead.
 *
 * @throws ImagingError IMAGE_INVALID (fields that no table can hold), READ_BACK_MISMATCH, DISK_WRITE_FAILED
 */
export const writeTable = async (
  claim: DiskClaim,
  plan: Plan,
  options: Options & { bootArea?: Uint8Array } = {},
): Promise<DiskTable> => {
  assertClaim(claim);
  const { bootArea, ...rest } = options;
  const { path } = claim;
  const { size, sectorSize } = await geometry(path, rest);
  if (size !== plan.disk.size || sectorSize !== plan.disk.logicalSectorSize) {
    throw new ImagingError('DISK_CHANGED', `Cannot write the table: ${path} is not the disk of the plan`);
  }
  if (plan.table === 'none') return await readTable(path, rest);
  await removePartitions(claim, rest);
  const script = sfdiskScript(plan, path, gptUsable(size, sectorSize));
  // no wiping: the partitions' data is there already
  const quiet = ['--quiet', '--color=never', '--no-reread', '--no-tell-kernel'];
  const args = [...quiet, '--wipe', 'never', '--wipe-partitions', 'never', path];
  await run('sfdisk', args, { ...rest, input: script });
  if (plan.table === 'gpt') {
    const names = new Map(plan.partitions.map(({ number, label }) => [number, label]));
    await writeGptNames(path, size, sectorSize, names);
  }
  const pieces = bootArea ? bootPieces(bootArea, plan) : [];
  await writeAt(path, pieces);
  await flushDevice(path, rest);
  const table = await readTable(path, rest);
  const differences = compareTable(table, plan);
  for (const { offset, bytes } of pieces) {
    if (!(await readAt(path, offset, bytes.length)).equals(bytes)) differences.push(`boot code at ${offset}`);
  }
  if (plan.table === 'gpt') differences.push(...(await verifyGpt(path, rest)));
  if (differences.length > 0) {
    throw new ImagingError(
      'READ_BACK_MISMATCH',
      `Cannot write the partition table of ${path}: ${differences.join('; ')}`,
      { details: { path, differences } },
    );
  }
  await syncPartitions(claim, table, rest);
  return table;
};

/** What differs between a table on a disk and the plan, in words; empty when they agree. Pure. */
export const compareTable = (table: DiskTable, plan: Plan): string[] => {
  const differences: string[] = [];
  const compare = (what: string, actual: unknown, wanted: unknown) => {
    if (actual !== wanted) differences.push(`${what} is ${actual}, not ${wanted}`);
  };
  compare('kind', table.kind, plan.table);
  compare('id', sameId(table.id), sameId(plan.tableId));
  compare('number of partitions', table.partitions.length, plan.partitions.length);
  for (const wanted of plan.partitions) {
    const actual = table.partitions.find(({ number }) => number === wanted.number);
    if (!actual) {
      differences.push(`partition ${wanted.number} is missing`);
      continue;
    }
    for (const field of ['start', 'size', 'type', 'attributes'] as const) {
      compare(`${field} of partition ${wanted.number}`, actual[field], wanted[field]);
    }
    if (plan.table === 'gpt') {
      compare(`label of partition ${wanted.number}`, actual.label, wanted.label);
      // an image without partition UUIDs gets new ones
      if (wanted.uuid) compare(`UUID of partition ${wanted.number}`, actual.uuid, wanted.uuid);
    }
  }
  return differences;
};

/** sfdisk pads MBR signatures to eight digits */
const sameId = (id: string): string => id.replace(/^0x0*(?=.)/, '0x');

const bootPieces = (bootArea: Uint8Array, plan: Plan): { offset: number; bytes: Uint8Array }[] => {
  const pieces = [{ offset: 0, bytes: bootArea.subarray(0, BOOT_CODE_BYTES) }];
  const firstStart = Math.min(...plan.partitions.map(({ start }) => start), bootArea.length);
  if (plan.table === 'dos' && firstStart > MBR_BYTES) {
    pieces.push({ offset: MBR_BYTES, bytes: bootArea.subarray(MBR_BYTES, firstStart) });
  }
  return pieces.filter(({ bytes }) => bytes.length > 0);
};

/** A second opinion on both copies and their checksums. */
const verifyGpt = async (path: string, options: Options): Promise<string[]> => {
  const { stdout } = await run('sgdisk', ['-v', path], options);
  return stdout.includes('No problems found') ? [] : [`sgdisk -v: ${stdout.trim().slice(0, 1000)}`];
};

const wipefsSchema = z.object({
  signatures: z.array(z.object({ offset: z.string(), length: z.coerce.number().int().positive() })),
});

const signatures = async (path: string, options: Options): Promise<ByteRange[]> => {
  const args = ['--no-act', '--json', '--output', 'OFFSET,LENGTH', path];
  const { stdout } = await run('wipefs', args, options);
  // nothing found, nothing printed
  if (stdout.trim() === '') return [];
  return wipefsSchema
    .parse(JSON.parse(stdout))
    .signatures.map(({ offset, length }) => ({ start: Number(offset), size: length }));
};

/** The parts of a range that no kept range covers. */
const without = (range: ByteRange, keep: readonly ByteRange[]): ByteRange[] =>
  keep.reduce<ByteRange[]>(
    (parts, kept) =>
      parts.flatMap(({ start, size }) => {
        const [end, keptEnd] = [start + size, kept.start + kept.size];
        if (keptEnd <= start || kept.start >= end) return [{ start, size }];
        return [
          { start, size: kept.start - start },
          { start: keptEnd, size: end - keptEnd },
        ].filter((part) => part.size > 0);
      }),
    [range],
  );

const writeZeros = async (path: string, ranges: readonly ByteRange[]): Promise<void> =>
  await writeAt(
    path,
    ranges.map(({ start, size }) => ({ offset: start, bytes: new Uint8Array(size) })),
  );

const geometry = async (path: string, options: Options): Promise<{ size: number; sectorSize: number }> => {
  try {
    const { stdout } = await run('blockdev', ['--getsize64', '--getss', path], options);
    const [size, sectorSize] = stdout.trim().split('\n').map(Number);
    if (!size || !sectorSize) throw new ImagingError('DISK_READ_FAILED', `Cannot measure ${path}`);
    return { size, sectorSize };
  } catch (error) {
    if (hasCode(error, 'TOOL_FAILED')) {
      throw new ImagingError('DISK_READ_FAILED', `Cannot measure ${path}: not a block device`, {
        cause: error,
      });
    }
    throw error;
  }
};

const saysNoTable = (error: unknown): boolean =>
  error instanceof ImagingError &&
  error.code === 'TOOL_FAILED' &&
  String(error.details['stderr']).includes('does not contain a recognized partition table');

const notRemoved = (path: string, reason: string): ImagingError =>
  new ImagingError('DISK_WRITE_FAILED', `Cannot remove the partition table of ${path}: ${reason}`, {
    details: { path },
  });
