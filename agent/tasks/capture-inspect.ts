import type { Disk } from '../disk/disk.ts';
import { roleOf } from '../disk/roles.ts';
import type { DiskTable, TablePartition } from '../disk/table.ts';
import { hasCode, ImagingError, toImagingError } from '../errors.ts';
import { driverFor } from '../filesystem/index.ts';
import { probe } from '../filesystem/probe.ts';
import type { Extent } from '../image/extent.ts';
import { readOs } from '../os/os-facts.ts';
import type { ImagePartition, Manifest } from '../protocol/index.ts';
import type { TaskContext } from './context.ts';

/** A partition as it will stand in the manifest, and the bytes to read. */
export interface Content {
  partition: Omit<ImagePartition, 'index' | 'map'>;
  extents: Extent[];
  os: Manifest['os'];
}

/**
 * Look at every partition, read-only: what it is, what of it is used, how it will be kept and why. `prefix`
 * goes before the partitions' names: `d2` makes `d2p1`.
 */
export const inspectContent = async (
  disk: Disk,
  table: DiskTable,
  context: TaskContext,
  prefix = '',
): Promise<Content[]> => {
  const contents: Content[] = [];
  for (const part of table.partitions) {
    context.signal.throwIfAborted();
    const content = await inspectPartition(part, `${prefix}p${part.number}`, context);
    const { partition } = content;
    context.log.info(
      { partition },
      `${partition.name}: ${partition.filesystem?.type ?? 'unknown'}, ${partition.role}, kept ${partition.method}${partition.reason ? ` (${partition.reason})` : ''}`,
    );
    contents.push(content);
  }
  if (contents.length === 0) {
    throw new ImagingError('LAYOUT_UNSUPPORTED', `Cannot capture ${disk.path}: its table has no partitions`);
  }
  return contents;
};

const inspectPartition = async (
  part: TablePartition,
  name: string,
  context: TaskContext,
): Promise<Content> => {
  const { signal } = context;
  const found = await probe(part.path, { signal });
  const os = await readOs(part.path, found.type, signal);
  const base = {
    name,
    number: part.number,
    start: part.start,
    size: part.size,
    type: part.type,
    uuid: part.uuid,
    label: part.label,
    attributes: part.attributes,
    bootRecord: null,
    contains: [],
    damaged: [],
    role: roleOf({ type: part.type, filesystem: found.type, hasOs: os !== null }),
  };
  const facts = {
    type: found.type,
    uuid: found.uuid,
    label: found.label,
    minimumBytes: null,
    usedBytes: null,
  };
  const raw = (reason: string): Content => {
    if (reason) context.warn(`${base.name} is kept whole: ${reason}`);
    const filesystem = found.type === '' ? null : facts;
    return {
      partition: { ...base, filesystem, method: 'raw', reason },
      extents: [{ offset: 0, length: part.size }],
      os,
    };
  };

  if (found.ambiguous) return raw('it carries the signatures of several filesystems');
  if (found.type === '') return raw('');
  const driver = driverFor(found.type);
  if (!driver) return raw(`no driver for ${found.type}`);
  if (driver.recreate) {
    return {
      partition: { ...base, filesystem: facts, method: 'recreate', reason: '' },
      extents: [],
      os: null,
    };
  }
  try {
    await driver.check(part.path, signal);
    const { extents, minimumBytes } = await driver.usage(part.path, part.size, signal);
    const usedBytes = extents.reduce((sum, { length }) => sum + length, 0);
    return {
      partition: { ...base, filesystem: { ...facts, minimumBytes, usedBytes }, method: 'used', reason: '' },
      extents,
      os,
    };
  } catch (thrown) {
    const error = toImagingError(thrown);
    if (hasCode(error, 'TASK_CANCELLED')) throw error;
    // Windows must end its own hibernation; a raw copy of it would be a trap for whoever deploys it
    if (hasCode(error, 'FILESYSTEM_DIRTY') && found.type === 'ntfs') throw error;
    return raw(error.message);
  }
};
