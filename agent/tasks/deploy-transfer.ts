import { serverSource, type Traffic } from '../client/server-chunks.ts';
import { discardRanges } from '../disk/discard.ts';
import { removePartitions } from '../disk/partition-nodes.ts';
import { removeTable } from '../disk/table.ts';
import { createBusyMeter } from '../image/busy.ts';
import { deployRange } from '../image/deploy.ts';
import { freeRanges } from '../image/free-ranges.ts';
import { chunkUsage, type Grid } from '../image/grid.ts';
import { type ChunkPool, createPool } from '../image/pool.ts';
import { decodeMap } from '../image/used-map.ts';
import { readBack } from '../image/verify.ts';
import type { Durable, PlannedPartition } from '../protocol/index.ts';
import type { TaskContext } from './context.ts';
import { type FetchedImage, fileOf } from './deploy-fetch.ts';
import type { Target } from './deploy-targets.ts';
import { createTally } from './tally.ts';

export interface TransferOptions {
  targets: readonly Target[];
  image: FetchedImage;
  verify: 'sample' | 'full' | 'none';
  binding: string;
  /** from the attempt before this one */
  durable: Durable | null;
  context: TaskContext;
}

/** A partition with content, and the disk that it goes to. */
interface Part {
  partition: PlannedPartition;
  target: Target;
}

/**
 * The image's data onto its disks, at its planned places, then read back. The old tables go first, so that
 * no disk can boot half of anything (but for disks that keep partitions); the new ones are not this function's to
 * write. What was moved is in the task's result however this ends.
 */
export const transferImage = async (options: TransferOptions): Promise<void> => {
  const { targets, image, verify, context } = options;
  const { signal } = context;
  const { chunkSize, image: name, version } = image.manifest;
  const resumed = options.durable?.binding === options.binding ? options.durable.ranges : {};
  const reached: Durable = { binding: options.binding, ranges: { ...resumed } };
  const traffic: Traffic = { sent: 0, received: 0 };
  const tally = createTally(traffic);
  const source = serverSource({
    server: context.server,
    image: name,
    version,
    chunkSize,
    traffic,
    onWait: (error) => context.log.warn({ err: error }, 'the transfer waits for the server'),
  });
  const parts = targets.flatMap((target): Part[] =>
    target.plan.partitions
      .filter(({ method }) => method !== 'recreate')
      .map((partition) => ({ partition, target })),
  );
  const total = parts.reduce((sum, { partition }) => sum + gridOf(partition, image).usedBytes, 0);
  if (Object.keys(resumed).length > 0)
    context.log.info({ resumed }, 'an earlier attempt left data here; going on');

  for (const target of targets) await removeOld(target, signal);
  const pool = createPool();
  let bytesReadBack = 0;
  try {
    const step = context.step('transfer', { total });
    step.watch(createBusyMeter(pool));
    for (const { partition, target } of parts) {
      step.say(`${partition.name} ${partition.filesystem || 'raw'}`);
      const { stats } = await deployRange({
        device: target.claim.path,
        start: partition.start,
        ...contentOf(partition, image),
        chunkSize,
        source,
        pool,
        imageBytes: total,
        durable: resumed[partition.name] ?? [],
        compare: 'sample',
        rotational: target.claim.disk.rotational,
        partition: partition.name,
        onProgress: step.add,
        onDurable: async (ranges) => {
          reached.ranges[partition.name] = ranges;
          await context.reportDurable(structuredClone(reached));
        },
        signal,
      });
      tally.add(stats);
    }

    for (const target of targets) await discardUnused(target, parts, image, context);

    if (verify === 'none') {
      context.prove(
        'the image was written',
        `the disk took and flushed what it had not of ${total} bytes; not read back, as the task says`,
      );
    } else bytesReadBack = await readAllBack(parts, verify, options, pool);
  } finally {
    context.showStats({ ...tally.total(), bytesReadBack });
    await pool.close();
  }
};

/** What no partition covers, and what the filesystems do not use: former owners' data, and room for the drive. */
const discardUnused = async (
  target: Target,
  parts: readonly Part[],
  image: FetchedImage,
  { signal, log }: TaskContext,
): Promise<void> => {
  const inside = parts
    .filter((part) => part.target === target && part.partition.method === 'used')
    .flatMap(({ partition }) =>
      freeRanges(gridOf(partition, image)).map(({ start, size }) => ({
        start: partition.start + start,
        size,
      })),
    );
  const { warning } = await discardRanges(target.claim, [...target.plan.unused, ...inside], { signal });
  if (warning) log.info(warning);
};

const removeOld = async ({ claim, plan }: Target, signal: AbortSignal): Promise<void> => {
  await removePartitions(claim, { signal });
  const keep = plan.partitions.map(({ start, contentSize: size }) => ({ start, size }));
  if (plan.oldTable === 'removed') await removeTable(claim, { keep, signal });
};

const readAllBack = async (
  parts: readonly Part[],
  mode: 'sample' | 'full',
  { image, context }: TransferOptions,
  pool: ChunkPool,
): Promise<number> => {
  const reading = context.step('read-back', { message: mode === 'full' ? 'every chunk' : 'a sample' });
  const rotational = parts.some(({ target }) => target.claim.disk.rotational);
  reading.watch(createBusyMeter(pool, rotational ? 1 : pool.workers));
  let chunks = 0;
  let bytes = 0;
  for (const { partition, target } of parts) {
    const checked = await readBack({
      device: target.claim.path,
      start: partition.start,
      ...contentOf(partition, image),
      chunkSize: image.manifest.chunkSize,
      mode,
      pool,
      rotational: target.claim.disk.rotational,
      onProgress: reading.add,
      signal: context.signal,
    });
    chunks += checked.chunks;
    bytes += checked.bytes;
  }
  context.prove(
    'the disk holds the image',
    `${chunks} chunks (${bytes} bytes) read back past the cache; every hash matches`,
  );
  return bytes;
};

const contentOf = (
  { name }: PlannedPartition,
  image: FetchedImage,
): { index: Uint8Array; map: Uint8Array } => ({
  index: fileOf(image, `${name}.caibx`),
  map: fileOf(image, `${name}.map`),
});

const gridOf = (partition: PlannedPartition, image: FetchedImage): Grid => {
  const { extents, size } = decodeMap(contentOf(partition, image).map);
  return chunkUsage(extents, image.manifest.chunkSize, size);
};
