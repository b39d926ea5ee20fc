import { readFile, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { ImagingError } from '../../../agent/errors.ts';
import { driverFor } from '../../../agent/filesystem/index.ts';
import { shrinkerFor } from '../../../agent/filesystem/shrink.ts';
import { decodeCaibx } from '../../../agent/image/caibx.ts';
import { captureRange } from '../../../agent/image/capture.ts';
import type { ChunkSink } from '../../../agent/image/chunk-store.ts';
import { chunkUsage } from '../../../agent/image/grid.ts';
import type { LocalStore } from '../../../agent/image/local-store.ts';
import type { ChunkPool } from '../../../agent/image/pool.ts';
import { decodeMap } from '../../../agent/image/used-map.ts';
import type { ImagePartition } from '../../../agent/protocol/index.ts';
import { extractPartition } from './extract.ts';

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

/** zstd level of the few chunks that change */
const LEVEL = 3;
const MIB = 1024 * 1024;
/** what a resizer writes beside the data that it moves: tables, a journal */
const MARGIN = 64 * MIB;

/** Content and index of a partition made smaller. The manifest's facts of files are for the caller to fill in. */
export const shrinkPartition = async (options: ShrinkPartitionOptions): Promise<SmallerPartition> => {
  const { partition, size, chunkSize, scratch, store, sink, pool, onStep, onProgress, signal } = options;
  const { name, filesystem } = partition;
  const type = filesystem?.type ?? '';
  const [shrinker, driver] = [shrinkerFor(type), driverFor(type)];
  if (!filesystem || !shrinker || !driver) {
    throw new ImagingError('INTERNAL', `Cannot shrink ${name}: no tool for ${type || 'what it holds'}`);
  }
  const file = join(scratch, `${name}.img`);
  onStep(`${name}: reading from the store`);
  const { index: before, map } = await contentOf(options);
  await extractPartition({ store, pool, index: before, map, file, onProgress, signal });
  await shrinker.shrink(file, size, { signal, onStep: (text) => onStep(`${name} (${type}): ${text}`) });
  await truncate(file, size);
  // as a capture would look at it: its own check, then its map
  await driver.check(file, signal);
  const { extents, minimumBytes } = await driver.usage(file, size, signal);

  onStep(`${name}: storing what changed`);
  const captured = await captureRange({
    ...{ device: file, start: 0, size, extents, chunkSize, level: LEVEL, sink, pool, onProgress, signal },
  });
  await truncate(file, 0);
  return {
    partition: {
      ...partition,
      size,
      filesystem: {
        ...filesystem,
        minimumBytes,
        usedBytes: extents.reduce((sum, { length }) => sum + length, 0),
      },
    },
    index: captured.index,
    map: captured.map,
  };
};

/** Bytes that the work on this partition reads and writes through the engine, about; for a progress bar. */
export const workOf = async (options: Pick<ShrinkPartitionOptions, 'partition' | 'chunkSize' | 'from'>) =>
  2 * (await usageOf(options)).used;

/** Free space that one partition takes while it is made smaller, and the chunks that stay. Bytes, at most. */
export const spaceOf = async (
  options: Pick<ShrinkPartitionOptions, 'partition' | 'size' | 'chunkSize' | 'from'>,
): Promise<{ scratch: number; stored: number }> => {
  const { used, beyond } = await usageOf(options, options.size);
  return { scratch: used + beyond + MARGIN, stored: beyond + MARGIN };
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
