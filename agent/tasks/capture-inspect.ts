import type { Disk } from '../disk/disk.ts';
import { roleOf } from '../disk/roles.ts';
import type { DiskTable, TablePartition } from '../disk/table.ts';
import { ImagingError } from '../errors.ts';
import type { Extent } from '../image/extent.ts';
import type { ImagePartition, Manifest } from '../protocol/index.ts';
import { lookAtVolumes, type Seen } from '../volumes/look.ts';
import type { TaskContext } from './context.ts';

/** of the manifest; a disk with more volumes than that is still captured, with all of their data */
const CONTAINS_LIMIT = 256;

/** A partition as it will stand in the manifest, and the bytes to read. */
export interface Content {
  partition: Omit<ImagePartition, 'index' | 'map'>;
  extents: Extent[];
  os: Manifest['os'];
  /** where to read it: the disk, a snapshot on which a journal was replayed, or the clear side of BitLocker */
  source: { device: string; start: number };
  /** what holds the filesystem, from its first byte: the partition's device or what is read in its place */
  node: string;
}

export interface InspectContentOptions {
  /** passphrases and recovery passwords of encrypted volumes */
  keys: readonly string[];
  /** keep what is encrypted and cannot be opened, every block of it */
  raw: boolean;
  /** dispose after the last read: snapshots and clear sides live in it */
  held: AsyncDisposableStack;
}

/**
 * Look at every partition of these disks, read-only: what it is, what of it is used, how it will be kept and
 * why. Contents by disk. The partitions of further disks are called `d2p1` ….
 */
export const inspectContents = async (
  sources: readonly { disk: Disk; table: DiskTable }[],
  context: TaskContext,
  { keys, raw, held }: InspectContentOptions,
): Promise<Content[][]> => {
  const parts = sources.flatMap(({ disk, table }, at) => {
    if (table.partitions.length === 0) {
      throw new ImagingError(
        'LAYOUT_UNSUPPORTED',
        `Cannot capture ${disk.path}: its table has no partitions`,
      );
    }
    const prefix = at === 0 ? '' : `d${at + 1}`;
    return table.partitions.map((part) => ({ disk, part, name: `${prefix}p${part.number}` }));
  });
  const volumes = parts.map(({ part: { path: device, size }, name }) => ({
    ...{ device, size, name },
    partition: true,
  }));
  const looks = await lookAtVolumes(volumes, { signal: context.signal, keys, raw, held });
  const contents = new Map<Disk, Content[]>();
  for (const [at, { disk, part, name }] of parts.entries()) {
    const look = looks[at];
    if (look) contents.set(disk, [...(contents.get(disk) ?? []), contentOf(disk, part, name, look, context)]);
  }
  return sources.map(({ disk }) => contents.get(disk) ?? []);
};

const contentOf = (
  disk: Disk,
  part: TablePartition,
  name: string,
  look: Seen,
  context: TaskContext,
): Content => {
  const { method, reason, filesystem, contains, decryptedFrom, extents, os } = look;
  const partition = {
    name,
    number: part.number,
    start: part.start,
    size: part.size,
    type: part.type,
    uuid: part.uuid,
    label: part.label,
    attributes: part.attributes,
    bootRecord: part.bootRecord,
    contains: contains.slice(0, CONTAINS_LIMIT),
    decryptedFrom,
    damaged: [],
    role: roleOf({ type: part.type, filesystem: filesystem?.type ?? '', hasOs: os !== null }),
    filesystem,
    method,
    reason,
  };
  for (const warning of look.warnings) context.warn(warning);
  context.log.info(
    { partition },
    `${partition.name}: ${filesystem?.type ?? 'unknown'}, ${partition.role}, kept ${method}${reason ? ` (${reason})` : ''}`,
  );
  // a snapshot or a clear side has the partition's size and begins where it begins
  const elsewhere = look.source !== part.path;
  const source = elsewhere ? { device: look.source, start: 0 } : { device: disk.path, start: part.start };
  return { partition, extents, os, source, node: look.source };
};
