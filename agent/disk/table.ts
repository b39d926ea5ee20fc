import { hasCode, ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';
import type { ByteRange, ExtendedPartition, Plan } from '../protocol/index.ts';
import { assertClaim, type DiskClaim } from './claim.ts';
import { flushDevice, readAt, writeAt } from './device-io.ts';
import { GPT_ENTRIES_BYTES, gptUsable, isHybridMbr, readGptNames, writeGptNames } from './gpt.ts';
import { chainRecords, type Logical, readChain } from './mbr-chain.ts';
import { partitionPath, removePartitions, syncPartitions } from './partition-nodes.ts';
import { parseSfdisk, sfdiskScript } from './sfdisk.ts';
import { findSignatures } from './signatures.ts';

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
  bootRecord: number | null;
}

export interface DiskTable {
  kind: 'gpt' | 'dos' | 'none';
  /** disk GUID, lower case, or MBR signature as 0x… ; empty for none */
  id: string;
  logicalSectorSize: number;
  size: number;
  /** the container of logical partitions, which are among `partitions` */
  extended: ExtendedPartition | null;
  /** sorted by start */
  partitions: TablePartition[];
  /** what is wrong with it, though it can be used */
  warnings: string[];
}

interface Options {
  signal?: AbortSignal;
}

/** boot code ends where the MBR's disk signature begins; the table fills the rest of the first 512 bytes */
const BOOT_CODE_BYTES = 440;
const MBR_BYTES = 512;

/**
 * The partition table of a disk. Read-only. A filesystem on the whole disk is no table (`wholeDisk` makes a
 * partition of it). A GPT whose backup is damaged or not at the end is read with a warning.
 *
 * @throws ImagingError LAYOUT_UNSUPPORTED: hybrid MBR, another kind of table, a damaged primary GPT or chain of
 *   logical partitions
 */
export const readTable = async (path: string, options: Options = {}): Promise<DiskTable> => {
  const { size, sectorSize } = await geometry(path, options);
  const none = { kind: 'none', id: '', logicalSectorSize: sectorSize, size } as const;
  const nothing: DiskTable = { ...none, extended: null, partitions: [], warnings: [] };
  let table: DiskTable;
  try {
    const { stdout } = await run('sfdisk', ['--json', path], options);
    table = parseSfdisk(stdout, size);
  } catch (error) {
    if (!saysNoTable(error)) throw error;
    return nothing;
  }
  if (table.kind === 'dos') {
    return (await isFilesystem(path, table, options)) ? nothing : await withLogical(path, table);
  }
  if (isHybridMbr(await readAt(path, 0, MBR_BYTES))) {
    throw new ImagingError('LAYOUT_UNSUPPORTED', `Cannot use ${path}: it has a hybrid MBR beside its GPT`);
  }
  const { names, warnings } = await readGptNames(path, size, sectorSize);
  return {
    ...table,
    partitions: table.partitions.map((partition) => ({
      ...partition,
      label: names.get(partition.number) ?? '',
    })),
    warnings,
  };
};

/** A disk without a table as one partition, from its first byte to its last: for what lies on the disk itself. */
export const wholeDisk = (table: DiskTable, path: string): DiskTable => {
  if (table.kind !== 'none') return table;
  const size = table.size - (table.size % table.logicalSectorSize);
  const nameless = { type: '', uuid: '', label: '', attributes: '', bootRecord: null };
  return { ...table, partitions: [{ path, number: 1, start: 0, size, ...nameless }] };
};

/**
 * Boot sectors of FAT, NTFS and exFAT end like an MBR; mkfs.fat even writes one that describes the whole disk. On
 * the other hand GRUB leaves an old FAT's fields in an MBR. A table whose entries make sense is one, as for Linux.
 */
const isFilesystem = async (path: string, table: DiskTable, options: Options): Promise<boolean> => {
  const sector = await readAt(path, 0, MBR_BYTES);
  const flags = [0, 1, 2, 3].map((index) => sector[446 + index * 16]);
  const parts = [...table.partitions, ...(table.extended ? [table.extended] : [])];
  const sensible = parts.every(({ start, size }) => start > 0 && start + size <= table.size);
  if (parts.length > 0 && sensible && flags.every((flag) => flag === 0 || flag === 0x80)) return false;
  const { stdout } = await run('blkid', ['--probe', '--output', 'udev', path], {
    ...options,
    // 2: nothing found, 8: several signatures
    okExitCodes: [0, 2, 8],
  });
  return /^ID_FS_TYPE=(vfat|ntfs|exfat)$/m.test(stdout);
};

/** sfdisk reads 60 partitions of an MBR and leaves out the others */
const SFDISK_PARTITIONS = 60;

const withLogical = async (path: string, table: DiskTable): Promise<DiskTable> => {
  const { extended, logicalSectorSize } = table;
  if (!extended) return table;
  const logical = (await readChain(path, extended, logicalSectorSize)).map((one) => ({
    path: partitionPath(path, one.number),
    ...{ number: one.number, start: one.start, size: one.size, type: one.type, uuid: '', label: '' },
    attributes: one.bootable ? 'bootable' : '',
    bootRecord: one.bootRecord,
  }));
  const seen = table.partitions.filter(({ number }) => number > 4);
  const known = logical.filter(({ number }) => number <= SFDISK_PARTITIONS);
  const agreed = known.every((one) =>
    seen.some(({ number, start, size }) => number === one.number && start === one.start && size === one.size),
  );
  if (!agreed || seen.length !== known.length) {
    throw new ImagingError(
      'LAYOUT_UNSUPPORTED',
      `Cannot use ${path}: sfdisk reads the chain of its logical partitions otherwise`,
      { details: { path, chain: known, sfdisk: seen } },
    );
  }
  const partitions = [...table.partitions.filter(({ number }) => number <= 4), ...logical];
  return { ...table, partitions: partitions.sort((a, b) => a.start - b.start) };
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
    const left = (await findSignatures(path, rest)).flatMap(({ offset: start, length: size }) =>
      without({ start, size }, keep),
    );
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
 * table are there instead. A plan into the present layout writes nothing: the table is only compared.
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
  if (plan.table === 'none') {
    const table = await readTable(path, rest);
    if (table.kind !== 'none') assertSame(path, [`there is one of kind ${table.kind}, planned is none`]);
    return table;
  }
  await removePartitions(claim, rest);
  if (plan.oldTable === 'stays') return await confirmTable(claim, plan, rest);
  const script = sfdiskScript(plan, path, gptUsable(size, sectorSize));
  // no wiping: the partitions' data is there already
  const quiet = ['--quiet', '--color=never', '--no-reread', '--no-tell-kernel'];
  const args = [...quiet, '--wipe', 'never', '--wipe-partitions', 'never', path];
  await run('sfdisk', args, { ...rest, input: script });
  if (plan.table === 'gpt') {
    const names = new Map([...plan.partitions, ...plan.kept].map(({ number, label }) => [number, label]));
    await writeGptNames(path, size, sectorSize, names);
  }
  const chain = plan.extended ? chainRecords(plan.extended, logicalOf(plan), sectorSize) : [];
  const pieces = [...chain, ...(bootArea ? bootPieces(bootArea, plan) : [])];
  await writeAt(path, pieces);
  await flushDevice(path, rest);
  const table = await readTable(path, rest);
  const differences = compareTable(table, plan);
  for (const { offset, bytes } of pieces) {
    if (!(await readAt(path, offset, bytes.length)).equals(bytes)) differences.push(`boot code at ${offset}`);
  }
  if (plan.table === 'gpt') differences.push(...(await verifyGpt(path, rest)));
  assertSame(path, differences);
  await syncPartitions(claim, table, rest);
  return table;
};

/** A deploy into the layout that is there: nothing is written, and it still has to be that layout. */
const confirmTable = async (claim: DiskClaim, plan: Plan, options: Options): Promise<DiskTable> => {
  const table = await readTable(claim.path, options);
  assertSame(claim.path, compareTable(table, plan));
  await syncPartitions(claim, table, options);
  return table;
};

const assertSame = (path: string, differences: readonly string[]): void => {
  if (differences.length === 0) return;
  throw new ImagingError(
    'READ_BACK_MISMATCH',
    `Cannot write the partition table of ${path}: ${differences.join('; ')}`,
    { details: { path, differences } },
  );
};

const logicalOf = (plan: Plan): Logical[] =>
  [...plan.partitions, ...plan.kept].flatMap(({ number, start, size, type, attributes, bootRecord }) => {
    if (bootRecord === null) return [];
    if (!/^[0-9a-f]{2}$/.test(type)) {
      throw new ImagingError(
        'IMAGE_INVALID',
        `Cannot write the partition table: type ${JSON.stringify(type)}`,
      );
    }
    return [{ number, start, size, type, bootable: attributes === 'bootable', bootRecord }];
  });

/** What differs between a table on a disk and the plan, in words; empty when they agree. Pure. */
export const compareTable = (table: DiskTable, plan: Plan): string[] => {
  const differences: string[] = [];
  const compare = (what: string, actual: unknown, wanted: unknown) => {
    if (actual !== wanted) differences.push(`${what} is ${actual}, not ${wanted}`);
  };
  compare('kind', table.kind, plan.table);
  compare('id', sameId(table.id), sameId(plan.tableId));
  const planned = [...plan.partitions, ...plan.kept];
  compare('number of partitions', table.partitions.length, planned.length);
  for (const field of ['number', 'start', 'size', 'type'] as const) {
    compare(`${field} of the extended partition`, table.extended?.[field], plan.extended?.[field]);
  }
  for (const wanted of planned) {
    const actual = table.partitions.find(({ number }) => number === wanted.number);
    if (!actual) {
      differences.push(`partition ${wanted.number} is missing`);
      continue;
    }
    for (const field of ['start', 'size', 'type', 'attributes', 'bootRecord'] as const) {
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
  const starts = [...plan.partitions, ...plan.kept, ...(plan.extended ? [plan.extended] : [])];
  const firstStart = Math.min(...starts.map(({ start }) => start), bootArea.length);
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
