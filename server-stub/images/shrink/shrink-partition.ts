import { readFile, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { ImagingError } from '../../../agent/errors.ts';
import { totalLength } from '../../../agent/filesystem/extents.ts';
import { driverFor } from '../../../agent/filesystem/index.ts';
import { shrinkerFor } from '../../../agent/filesystem/shrink.ts';
import { decodeCaibx } from '../../../agent/image/caibx.ts';
import { captureRange } from '../../../agent/image/capture.ts';
import type { ChunkSink } from '../../../agent/image/chunk-store.ts';
import type { Extent } from '../../../agent/image/extent.ts';
import { chunkUsage } from '../../../agent/image/grid.ts';
import type { LocalStore } from '../../../agent/image/local-store.ts';
import type { ChunkPool } from '../../../agent/image/pool.ts';
import { decodeMap } from '../../../agent/image/used-map.ts';
import type { ContainedVolume, ImagePartition } from '../../../agent/protocol/index.ts';
import { extractPartition } from './extract.ts';
import { shrinkGroup } from './shrink-group.ts';

export interface ShrinkPartitionOptions {
  partition: ImagePartition;
  /** bytes that it is to have */
  size: number;
  chunkSize: number;
  /** folder of the version that it comes from */
  from: string;
  scratch: string;
  store: LocalStore;
  sink: ChunkSink;
  pool: ChunkPool;
  onStep: (text: string) => void;
  onProgress: (bytes: number) => void;
  signal: AbortSignal;
}

export interface SmallerPartition {
  partition: ImagePartition;
  index: Uint8Array;
  map: Uint8Array;
}

/** A partition put together in the scratch space. */
export interface Content {
  partition: ImagePartition;
  /** bytes that it is to have */
  size: number;
  file: string;
  /** what is used of it */
  extents: readonly Extent[];
  onStep: (text: string) => void;
  signal: AbortSignal;
}

/** What the file holds once it is smaller. */
export interface Made {
  extents: Extent[];
  minimumBytes: number | null;
  /** the volumes inside, where there are any */
  contains?: ContainedVolume[];
}

/** zstd level of the few chunks that change */
const LEVEL = 3;
const MIB = 1024 * 1024;
/** what a resizer writes beside the data that it moves: tables, a journal */
const MARGIN = 64 * MIB;

/** Content and index of a partition made smaller. The manifest's facts of files are for the caller to fill in. */
export const shrinkPartition = async (options: ShrinkPartitionOptions): Promise<SmallerPartition> => {
  const { partition, size, chunkSize, scratch, store, sink, pool, onStep, onProgress, signal } = options;
  const { name } = partition;
  const file = join(scratch, `${name}.img`);
  onStep(`${name}: reading from the store`);
  const { index: before, map } = await contentOf(options);
  await extractPartition({ store, pool, index: before, map, file, onProgress, signal });
  const { extents } = decodeMap(map);
  const made = await makeSmaller({ partition, size, file, extents, onStep, signal });

  onStep(`${name}: storing what changed`);
  const captured = await captureRange({
    ...{ device: file, start: 0, size, extents: made.extents, chunkSize, level: LEVEL, sink, pool },
    ...{ onProgress, signal },
  });
  await truncate(file, 0);
  return { partition: made.partition, index: captured.index, map: captured.map };
};

const makeSmaller = async (content: Content): Promise<{ partition: ImagePartition; extents: Extent[] }> => {
  const { partition, size } = content;
  const { filesystem } = partition;
  if (!filesystem) {
    throw new ImagingError('INTERNAL', `Cannot shrink ${partition.name}: it holds no filesystem`);
  }
  const group = filesystem.type === 'LVM2_member';
  const made = group ? await shrinkGroup(content) : await shrinkFilesystem(content, filesystem.type);
  const { minimumBytes, extents } = made;
  const facts = { ...filesystem, minimumBytes, usedBytes: totalLength(extents) };
  const contains = made.contains ?? partition.contains;
  return { partition: { ...partition, size, filesystem: facts, contains }, extents };
};

const shrinkFilesystem = async (
  { partition: { name }, file, size, onStep, signal }: Content,
  type: string,
): Promise<Made> => {
  const [shrinker, driver] = [shrinkerFor(type), driverFor(type)];
  if (!shrinker || !driver) throw new ImagingError('INTERNAL', `Cannot shrink ${name}: no tool for ${type}`);
  await shrinker.shrink(file, size, { signal, onStep: (text) => onStep(`${name} (${type}): ${text}`) });
  await truncate(file, size);
  // as a capture would look at it: its own check, then its map
  await driver.check(file, signal);
  return await driver.usage(file, size, signal);
};

/** Bytes that the work on this partition reads and writes through the engine, about; for a progress bar. */
export const workOf = async (options: Pick<ShrinkPartitionOptions, 'partition' | 'chunkSize' | 'from'>) =>
  2 * (await usageOf(options)).used;

/** Free space that one partition takes while it is made smaller, and the chunks that stay. Bytes, at most. */
export const spaceOf = async (
  options: Pick<ShrinkPartitionOptions, 'partition' | 'size' | 'chunkSize' | 'from'>,
): Promise<{ scratch: number; stored: number }> => {
  const { used, beyond } = await usageOf(options, options.size);
  // a volume group is put together anew beside the old one; its extents are moved by multiples of their size, so
  // with lvm2's own sizes chunks stay the same
  const copies = options.partition.filesystem?.type === 'LVM2_member' ? 2 : 1;
  return { scratch: copies * used + beyond + MARGIN, stored: beyond + MARGIN };
};

/** Plain bytes of the used chunks, and of what lies beyond `size` and has to move. */
const usageOf = async (
  options: Pick<ShrinkPartitionOptions, 'partition' | 'chunkSize' | 'from'>,
  size = Number.POSITIVE_INFINITY,
) => {
  const { map } = await contentOf(options);
  const { extents, size: whole } = decodeMap(map);
  const beyond = extents.reduce(
    (sum, { offset, length }) => sum + Math.max(0, offset + length - Math.max(offset, size)),
    0,
  );
  return { used: chunkUsage(extents, options.chunkSize, whole).usedBytes, beyond };
};

const contentOf = async ({
  partition,
  from,
  chunkSize,
}: Pick<ShrinkPartitionOptions, 'partition' | 'from' | 'chunkSize'>) => {
  const { name } = partition;
  const [index, map] = await Promise.all([
    readFile(join(from, `${name}.caibx`)),
    readFile(join(from, `${name}.map`)),
  ]);
  if (decodeCaibx(index).chunkSize === chunkSize && decodeMap(map).size === partition.size)
    return { index, map };
  throw new ImagingError(
    'IMAGE_INVALID',
    `Cannot shrink ${name}: index, map and manifest do not fit together`,
  );
};
