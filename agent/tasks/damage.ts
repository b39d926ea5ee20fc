import { hasCode, ImagingError } from '../errors.ts';
import type { Extent } from '../image/extent.ts';
import type { ByteRange, ImagePartition, Manifest, TaskParams } from '../protocol/index.ts';
import type { TaskContext } from './context.ts';
import { filesAt } from './files-at.ts';

/** A partition of the source disk, for messages about what cannot be read of it. */
export interface DamagedPlace {
  partition: Pick<ImagePartition, 'name' | 'start' | 'size' | 'filesystem'>;
  /** what holds the filesystem, from its first byte */
  path: string;
  /** byte of the device that is read at which the partition begins: 0 on a snapshot or a clear side of it */
  readFrom: number;
}

const SECTOR = 512;
/** ranges that a warning names; the manifest has them all */
const NAMED = 8;

/** A read error as the person with the disk needs it: with the partition, and the files where the filesystem tells. */
export const explainReadError = async (
  error: unknown,
  { partition, path, readFrom }: DamagedPlace,
  { signal }: Pick<TaskContext, 'signal'>,
): Promise<unknown> => {
  if (!hasCode(error, 'DISK_READ_FAILED') || !(error instanceof ImagingError)) return error;
  const ranges = error.details['ranges'];
  const extents = Array.isArray(ranges)
    ? (ranges as { lba: number; sectors: number }[]).map(({ lba, sectors }) => ({
        offset: lba * SECTOR - readFrom,
        length: sectors * SECTOR,
      }))
    : [];
  const files = await filesAt(path, partition.filesystem?.type ?? '', extents, signal);
  const where = `partition ${partition.name}${files.length > 0 ? `, files ${files.join(', ')}` : ''}`;
  const hint = 'rescue: true reads around it';
  return new ImagingError('DISK_READ_FAILED', `${error.message} (${where}; ${hint})`, {
    details: { ...error.details, partition: partition.name, files },
    cause: error,
  });
};

/**
 * Say in the task's warnings what a capture could not read, and return it as the manifest keeps it: bytes from the
 * partition's first.
 */
export const noteDamage = async (
  damaged: readonly Extent[],
  { partition, path }: DamagedPlace,
  context: Pick<TaskContext, 'warn' | 'signal'>,
): Promise<ByteRange[]> => {
  if (damaged.length === 0) return [];
  const bytes = damaged.reduce((sum, { length }) => sum + length, 0);
  const sectors = damaged.slice(0, NAMED).map(({ offset, length }) => {
    const first = Math.floor((partition.start + offset) / SECTOR);
    return length <= SECTOR ? String(first) : `${first}-${first + Math.ceil(length / SECTOR) - 1}`;
  });
  const more = damaged.length > NAMED ? ` and ${damaged.length - NAMED} more ranges` : '';
  const files = await filesAt(path, partition.filesystem?.type ?? '', damaged, context.signal);
  context.warn(
    `${partition.name} is damaged: ${bytes} bytes could not be read and are zeros in the image (sectors ${sectors.join(', ')}${more})${files.length > 0 ? `; files: ${files.join(', ')}` : ''}`,
  );
  return damaged.map(({ offset, length }) => ({ start: offset, size: length }));
};

/** For a summary: ` (damaged: 8192 bytes of p2)`, or nothing. */
export const damageSummary = (partitions: readonly Pick<ImagePartition, 'name' | 'damaged'>[]): string => {
  const parts = partitions.flatMap(({ name, damaged }) =>
    damaged.length > 0 ? [`${damaged.reduce((sum, { size }) => sum + size, 0)} bytes of ${name}`] : [],
  );
  return parts.length > 0 ? ` (damaged: ${parts.join(', ')})` : '';
};

/**
 * An image with holes is written only by who asked for it, and is warned about then. Partitions that the task does not
 * write do not count.
 *
 * @throws ImagingError IMAGE_DAMAGED
 */
export const requireSound = (
  manifest: Manifest,
  params: Pick<TaskParams<'deploy'>, 'allowDamaged' | 'partitions' | 'keep'>,
  warn: (text: string) => void,
): void => {
  const hurt = manifest.disks
    .flatMap(({ partitions }) => partitions)
    .filter(({ damaged }) => damaged.length > 0)
    .filter(({ number }) => params.partitions?.includes(number) ?? true)
    .filter(({ number }) => !params.keep?.includes(number));
  if (hurt.length === 0) return;
  const what = `${manifest.image} version ${manifest.version}${damageSummary(hurt)} lacks what could not be read at capture`;
  if (params.allowDamaged) {
    warn(`${what}; zeros are written in its place`);
    return;
  }
  const details = { partitions: hurt.map(({ name, damaged }) => ({ name, damaged: damaged.slice(0, 100) })) };
  throw new ImagingError(
    'IMAGE_DAMAGED',
    `Cannot deploy: ${what} (allowDamaged: true writes it all the same)`,
    {
      details,
    },
  );
};
