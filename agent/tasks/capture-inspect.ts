import type { Disk } from '../disk/disk.ts';
import { roleOf } from '../disk/roles.ts';
import type { DiskTable, TablePartition } from '../disk/table.ts';
import { ImagingError } from '../errors.ts';
import type { Extent } from '../image/extent.ts';
import type { ImagePartition, Manifest } from '../protocol/index.ts';
import { lookAtVolumes, type Seen } from '../volumes/look.ts';
import type { TaskContext } from './context.ts';

/** A partition as it will stand in the manifest, and the bytes to read. */
export interface Content {
  partition: Omit<ImagePartition, 'index' | 'map'>;
  extents: Extent[];
  os: Manifest['os'];
  /** where to read it: the disk, or a snapshot on which a journal was replayed */
  source: { device: string; start: number };
}

export interface InspectContentOptions {
  /** passphrases of encrypted volumes */
  keys: readonly string[];
  /** keep what is encrypted and cannot be opened, every block of it */
  raw: boolean;
  /** dispose after the last read: snapshots live in it */
  held: AsyncDisposableStack;
}

/** Look at every partition, read-only: what it is, what of it is used, how it will be kept and why. */
export const inspectContent = async (
  disk: Disk,
  table: DiskTable,
  context: TaskContext,
  { keys, raw, held }: InspectContentOptions,
): Promise<Content[]> => {
  const { partitions } = table;
  if (partitions.length === 0) {
    throw new ImagingError('LAYOUT_UNSUPPORTED', `Cannot capture ${disk.path}: its table has no partitions`);
  }
  const volumes = partitions.map(({ path: device, size, number }) => ({
    device,
    size,
    name: `p${number}`,
    partition: true,
  }));
  const looks = await lookAtVolumes(volumes, { signal: context.signal, keys, raw, held });
  return partitions.flatMap((part, at) => {
    const look = looks[at];
    return look ? [contentOf(disk, part, look, context)] : [];
  });
};

const contentOf = (disk: Disk, part: TablePartition, look: Seen, context: TaskContext): Content => {
  const { method, reason, filesystem, contains, extents, os } = look;
  const partition = {
    name: `p${part.number}`,
    number: part.number,
    start: part.start,
    size: part.size,
    type: part.type,
    uuid: part.uuid,
    label: part.label,
    attributes: part.attributes,
    bootRecord: null,
    contains,
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
  // a snapshot has the partition's size and begins where it begins
  const replayed = look.source !== part.path;
  const source = replayed ? { device: look.source, start: 0 } : { device: disk.path, start: part.start };
  return { partition, extents, os, source };
};
