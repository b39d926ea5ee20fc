import { readAt } from '../disk/device-io.ts';
import type { Disk } from '../disk/disk.ts';
import { type DiskTable, readTable, wholeDisk } from '../disk/table.ts';
import { ImagingError } from '../errors.ts';
import { probe } from '../filesystem/probe.ts';
import type { ImageDisk, ImagePartition } from '../protocol/index.ts';
import { type Content, type InspectContentOptions, inspectContents } from './capture-inspect.ts';
import type { TaskContext } from './context.ts';
import { bytesWrittenTo, imageFile } from './disk-facts.ts';

/** A disk to capture, looked at and not yet read. */
export interface SourceDisk {
  /** `d1`, `d2` … */
  name: string;
  disk: Disk;
  table: DiskTable;
  contents: Content[];
  /** bytes that the kernel had counted as written to it before we looked */
  writtenBefore: number;
}

const BOOT_AREA_LIMIT = 1024 * 1024;

/**
 * Look at disks and at each of their partitions, all together: volumes may span them. Read-only.
 *
 * @throws ImagingError LAYOUT_UNSUPPORTED, FILESYSTEM_DIRTY (Windows must end its hibernation itself),
 *   UNLOCK_FAILED, DISK_READ_FAILED
 */
export const inspectDisks = async (
  disks: readonly Disk[],
  context: TaskContext,
  options: InspectContentOptions,
): Promise<SourceDisk[]> => {
  const sources: Omit<SourceDisk, 'contents'>[] = [];
  for (const [at, disk] of disks.entries()) {
    const writtenBefore = await bytesWrittenTo(disk);
    const table = wholeDisk(await readTable(disk.path, { signal: context.signal }), disk.path);
    if (table.kind === 'none') await requireContent(disk, context.signal);
    for (const warning of table.warnings) context.warn(warning);
    sources.push({ name: `d${at + 1}`, disk, table, writtenBefore });
  }
  const contents = await inspectContents(sources, context, options);
  return sources.map((source, at) => ({ ...source, contents: contents[at] ?? [] }));
};

/** A disk without a table is one partition; one without anything on it is nobody's image. */
const requireContent = async (disk: Disk, signal: AbortSignal): Promise<void> => {
  const { type, ambiguous } = await probe(disk.path, { signal });
  if (type !== '' || ambiguous) return;
  throw new ImagingError(
    'LAYOUT_UNSUPPORTED',
    `Cannot capture ${disk.path}: it has neither a partition table nor a filesystem`,
  );
};

/** The disk as it stands in the manifest; its boot area is put among `files`. */
export const imageDiskOf = async (
  { name, disk, table }: SourceDisk,
  partitions: ImagePartition[],
  files: Map<string, Uint8Array>,
): Promise<ImageDisk> => {
  const bootArea = await readBootArea(disk, table);
  if (bootArea) files.set(`${name}.boot`, bootArea);
  return {
    name,
    size: disk.size,
    logicalSectorSize: disk.logicalSectorSize === 4096 ? 4096 : 512,
    model: disk.model ?? '',
    serial: disk.serial ?? '',
    table: table.kind,
    tableId: table.id,
    bootArea: bootArea ? imageFile(`${name}.boot`, bootArea) : null,
    extended: table.extended,
    partitions,
  };
};

/**
 * First bytes of the disk up to the first partition: boot code and, on MBR, what GRUB keeps in the gap. Null
 * where there is no table, since the content begins at the first byte.
 */
const readBootArea = async (disk: Disk, table: DiskTable): Promise<Uint8Array | null> => {
  const starts = [...table.partitions, ...(table.extended ? [table.extended] : [])].map(({ start }) => start);
  const end = Math.min(...starts, BOOT_AREA_LIMIT);
  return end === 0 ? null : await readAt(disk.path, 0, end);
};

/** @throws ImagingError DISK_CHANGED: something wrote to the source meanwhile */
export const proveUntouched = async (
  { disk, writtenBefore }: SourceDisk,
  context: TaskContext,
): Promise<void> => {
  const written = (await bytesWrittenTo(disk)) - writtenBefore;
  if (written !== 0) {
    throw new ImagingError(
      'DISK_CHANGED',
      `Cannot trust the capture: ${disk.path} was written to (${written} bytes)`,
    );
  }
  context.prove(
    `the source ${disk.serial ?? disk.path} was not written to`,
    `the kernel counts 0 bytes written to ${disk.path} meanwhile`,
  );
};
