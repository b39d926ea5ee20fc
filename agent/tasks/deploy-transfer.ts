import { serverSource, type Traffic } from '../client/server-chunks.ts';
import type { DiskClaim } from '../disk/claim.ts';
import { discardRanges } from '../disk/discard.ts';
import { removePartitions } from '../disk/partition-nodes.ts';
import { removeTable } from '../disk/table.ts';
import { deployRange } from '../image/deploy.ts';
import { chunkUsage } from '../image/grid.ts';
import { type ChunkPool, createPool } from '../image/pool.ts';
import { decodeMap } from '../image/used-map.ts';
import { readBack } from '../image/verify.ts';
import type { Durable, Plan, PlannedPartition, TransferStats } from '../protocol/index.ts';
import type { TaskContext } from './context.ts';
import { type FetchedImage, fileOf } from './deploy-fetch.ts';
import { createTally } from './tally.ts';

export interface TransferOptions {
  claim: DiskClaim;
  plan: Plan;
  image: FetchedImage;
  verify: 'sample' | 'full' | 'none';
  binding: string;
  /** from the attempt before this one */
  durable: Durable | null;
  context: TaskContext;
}

/**
 * The image's data onto the disk, at its planned places, then read back. The old table goes first, so
 * that the disk cannot boot half of anything (unless the disk keeps partitions); the new one is not this
 * function's to write.
 */
export const transferImage = async (options: TransferOptions): Promise<TransferStats> => {
  const { claim, plan, image, verify, context } = options;
  const { signal } = context;
  const { chunkSize } = image.manifest;
  const resumed = options.durable?.binding === options.binding ? options.durable.ranges : {};
  const reached: Durable = { binding: options.binding, ranges: { ...resumed } };
  const traffic: Traffic = { sent: 0, received: 0 };
  const tally = createTally(traffic);
  const source = serverSource({
    server: context.server,
    image: plan.image,
    version: plan.version,
    chunkSize,
    traffic,
    onWait: (error) => context.log.warn({ err: error }, 'the transfer waits for the server'),
  });
  const written = plan.partitions.filter(({ method }) => method !== 'recreate');
  const total = written.reduce((sum, partition) => sum + usedBytes(partition, image), 0);
  if (Object.keys(resumed).length > 0)
    context.log.info({ resumed }, 'an earlier attempt left data here; going on');

  await removePartitions(claim, { signal });
  if (plan.oldTable === 'removed') {
    await removeTable(claim, {
      keep: plan.partitions.map(({ start, contentSize: size }) => ({ start, size })),
      signal,
    });
  }
  const pool = createPool();
  let bytesReadBack = 0;
  try {
    const step = context.step('transfer', { total });
    for (const partition of written) {
      step.say(`${partition.name} ${partition.filesystem || 'raw'}`);
      const { stats } = await deployRange({
        device: claim.path,
        start: partition.start,
        ...contentOf(partition, image),
        chunkSize,
        source,
        pool,
        durable: resumed[partition.name] ?? [],
        compare: 'sample',
        rotational: claim.disk.rotational,
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

    const discarded = await discardRanges(claim, plan.unused, { signal });
    if (discarded.warning) context.log.info(discarded.warning);

    if (verify === 'none') {
      context.prove(
        'the image was written',
        `the disk took and flushed ${total} bytes, each checked before; not read back, as the task says`,
      );
    } else bytesReadBack = await readAllBack(options, written, verify, pool);
  } finally {
    await pool.close();
  }
  return { ...tally.total(), bytesReadBack };
};

const readAllBack = async (
  { claim, image, context }: TransferOptions,
  written: readonly PlannedPartition[],
  mode: 'sample' | 'full',
  pool: ChunkPool,
): Promise<number> => {
  const reading = context.step('read-back', { message: mode === 'full' ? 'every chunk' : 'a sample' });
  let chunks = 0;
  let bytes = 0;
  for (const partition of written) {
    const checked = await readBack({
      device: claim.path,
      start: partition.start,
      ...contentOf(partition, image),
      chunkSize: image.manifest.chunkSize,
      mode,
      pool,
      rotational: claim.disk.rotational,
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

const usedBytes = (partition: PlannedPartition, image: FetchedImage): number => {
  const { extents, size } = decodeMap(contentOf(partition, image).map);
  return chunkUsage(extents, image.manifest.chunkSize, size).usedBytes;
};
