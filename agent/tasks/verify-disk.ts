import type { Disk } from '../disk/disk.ts';
import { planDeploy } from '../disk/planner.ts';
import { compareTable, type DiskTable, readTable } from '../disk/table.ts';
import { isImagingError } from '../errors.ts';
import { compareRange } from '../image/compare.ts';
import { chunkUsage } from '../image/grid.ts';
import { createPool } from '../image/pool.ts';
import { decodeMap } from '../image/used-map.ts';
import type { ByteRange, ImageDisk, ImagePartition } from '../protocol/index.ts';
import { type FetchedImage, fileOf } from './deploy-fetch.ts';

export interface PartitionReport {
  name: string;
  filesystem: string;
  /** chunks of `chunkSize` bytes in which the image has content */
  chunks: number;
  same: number;
  different: number;
  unreadable: number;
  /** hold sectors that could not be read at capture */
  leftOut: number;
  /** where it differs or cannot be read, bytes from the start of the disk: the first of these ranges */
  ranges: ByteRange[];
  rangesInAll: number;
  /** why it was not compared, else empty */
  note: string;
}

export interface VerifyReport {
  image: string;
  version: number;
  disk: { path: string; serial: string; size: number };
  same: boolean;
  /** what differs between partition table and image, in words */
  table: string[];
  partitions: PartitionReport[];
}

export interface CompareDiskOptions {
  disk: Disk;
  image: FetchedImage;
  /** `d1` …; the first where the image has one only */
  imageDisk?: string;
  onProgress?: (done: number, total: number) => void;
  signal: AbortSignal;
}

const SHOWN_RANGES = 20;

/** Compare a disk with an image version: its table, then each partition where the disk's own table has it. Read-only. */
export const compareDisk = async (options: CompareDiskOptions): Promise<VerifyReport> => {
  const { disk, image, signal, onProgress } = options;
  const { manifest } = image;
  const [first] = manifest.disks;
  const imageDisk = options.imageDisk ?? first?.name ?? 'd1';
  const wanted = manifest.disks.find(({ name }) => name === imageDisk)?.partitions ?? [];
  const table = await readTable(disk.path, { signal });
  const kept = wanted.filter(({ map }) => map !== null);
  const total = kept.reduce((sum, { map, size }) => {
    const { extents } = decodeMap(fileOf(image, map?.name ?? ''));
    return sum + chunkUsage(extents, manifest.chunkSize, size).usedBytes;
  }, 0);
  let done = 0;
  const partitions: PartitionReport[] = [];
  const pool = createPool();
  try {
    for (const partition of wanted) {
      partitions.push(
        await comparePartition(
          { ...options, partition, table, kind: tableOf(image, imageDisk), pool },
          (bytes) => {
            done += bytes;
            onProgress?.(done, total);
          },
        ),
      );
    }
  } finally {
    await pool.close();
  }
  const differences = tableDifferences(disk, table, image, imageDisk);
  return {
    image: manifest.image,
    version: manifest.version,
    disk: { path: disk.path, serial: disk.serial ?? '', size: disk.size },
    same: differences.length === 0 && partitions.every(isSame),
    table: differences,
    partitions,
  };
};

const isSame = ({ different, unreadable, note, chunks }: PartitionReport): boolean =>
  different === 0 && unreadable === 0 && (note === '' || chunks === 0);

const tableOf = ({ manifest }: FetchedImage, name: string): ImageDisk['table'] =>
  manifest.disks.find((disk) => disk.name === name)?.table ?? 'none';

interface PartitionOptions extends CompareDiskOptions {
  partition: ImagePartition;
  table: DiskTable;
  kind: ImageDisk['table'];
  pool: ReturnType<typeof createPool>;
}

const comparePartition = async (
  { disk, image, partition, table, kind, pool, signal }: PartitionOptions,
  onProgress: (bytes: number) => void,
): Promise<PartitionReport> => {
  const report = {
    ...{ name: partition.name, filesystem: partition.filesystem?.type ?? '' },
    ...{ chunks: 0, same: 0, different: 0, unreadable: 0, leftOut: 0 },
    ...{ ranges: [] as ByteRange[], rangesInAll: 0, note: '' },
  };
  const { index, map } = partition;
  if (!index || !map) return { ...report, note: 'has no content in the image: it is made anew' };
  const place =
    kind === 'none'
      ? { start: 0, size: disk.size }
      : table.partitions.find(({ number }) => number === partition.number);
  const { chunkSize } = image.manifest;
  if (!place) return { ...report, chunks: index.chunks, note: 'is not on the disk' };
  if (place.size < partition.size) {
    const note = `has ${place.size} bytes on the disk, fewer than the ${partition.size} of the image`;
    return { ...report, chunks: index.chunks, note };
  }
  const compared = await compareRange({
    device: disk.path,
    start: place.start,
    index: fileOf(image, index.name),
    map: fileOf(image, map.name),
    chunkSize,
    damaged: partition.damaged.map(({ start, size }) => ({ offset: start, length: size })),
    pool,
    rotational: disk.rotational,
    onProgress,
    signal,
  });
  const ranges = compared.ranges.slice(0, SHOWN_RANGES).map(([from, to]) => ({
    start: place.start + from * chunkSize,
    size: Math.min((to + 1) * chunkSize, partition.size) - from * chunkSize,
  }));
  const { same, different, unreadable, leftOut, chunks } = compared;
  return {
    ...report,
    chunks,
    same,
    different,
    unreadable,
    leftOut,
    ranges,
    rangesInAll: compared.ranges.length,
  };
};

/** As a deploy without growing would have written it. */
const tableDifferences = (
  disk: Disk,
  table: DiskTable,
  { manifest }: FetchedImage,
  imageDisk: string,
): string[] => {
  try {
    const plan = planDeploy(manifest, disk, { firmware: manifest.firmware, grow: false, imageDisk });
    return plan.table === 'none' && table.kind === 'none' ? [] : compareTable(table, plan);
  } catch (error) {
    if (!isImagingError(error)) throw error;
    return [error.message];
  }
};

/** The report for people, with what was compared and what was not. */
export const describeReport = (report: VerifyReport): string => {
  const { disk, partitions, table } = report;
  const serial = disk.serial ? ` (serial ${disk.serial})` : '';
  const lines = [
    `${disk.path}${serial} and ${report.image} version ${report.version}: ${report.same ? 'the same' : 'they differ'}`,
    ...(table.length === 0 ? ['table: the same'] : table.map((text) => `table: ${text}`)),
    ...partitions.flatMap(linesOf),
    'Compared: the table, and of each partition the blocks that its filesystem used when it was captured.',
    'Not compared: free space, swap, what could not be read at capture. A filesystem that was grown and a system that',
    'was started differ in some blocks by nature; a disk that was only just deployed with grow: false does not.',
  ];
  return lines.join('\n');
};

const linesOf = (part: PartitionReport): string[] => {
  const head = `${part.name}${part.filesystem ? ` ${part.filesystem}` : ''}:`;
  if (part.note) return [`${head} ${part.note}`];
  const facts = [`${part.same} of ${part.chunks} chunks the same`];
  if (part.different > 0) facts.push(`${part.different} different`);
  if (part.unreadable > 0) facts.push(`${part.unreadable} unreadable`);
  if (part.leftOut > 0) facts.push(`${part.leftOut} left out: damaged in the image`);
  const ranges = part.ranges.map(({ start, size }) => `  bytes ${start} to ${start + size - 1} of the disk`);
  const more = part.rangesInAll - part.ranges.length;
  return [`${head} ${facts.join(', ')}`, ...ranges, ...(more > 0 ? [`  and ${more} more ranges`] : [])];
};
