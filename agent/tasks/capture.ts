import { serverSink, type Traffic } from '../client/server-chunks.ts';
import { listDisks } from '../disk/disk.ts';
import { selectDisks } from '../disk/select.ts';
import { ImagingError } from '../errors.ts';
import { createBusyMeter } from '../image/busy.ts';
import { type Captured, captureRange } from '../image/capture.ts';
import { chunkSizeFor, chunkUsage } from '../image/grid.ts';
import { manifestText, verifyManifest } from '../image/manifest.ts';
import { createPool } from '../image/pool.ts';
import type { ImageDisk, ImagePartition, Manifest } from '../protocol/index.ts';
import { imageDiskOf, inspectDisks, proveUntouched, type SourceDisk } from './capture-disk.ts';
import type { Content } from './capture-inspect.ts';
import type { Handler, TaskContext, TaskOf } from './context.ts';
import { damageSummary, explainReadError, noteDamage } from './damage.ts';
import { identityOf, imageFile } from './disk-facts.ts';
import { createTally } from './tally.ts';
import { toolVersions } from './tool-versions.ts';

/**
 * Make a new version of an image from this machine's disk, or from several. They stay read-only from
 * beginning to end; the version exists only once the server has published its manifest.
 */
export const capture: Handler<'capture'> = async (task, context) => {
  const { signal, server } = context;
  const { image, level, raw, rescue } = task.params;
  const keys = unlockKeys(task);

  context.step('inspect');
  const hints = task.params.disks ?? [task.params.disk];
  const chosen = selectDisks(await listDisks({ signal }), hints, 'capture');
  if (chosen[0]) context.showDisk(identityOf(chosen[0]));
  await using held = new AsyncDisposableStack();
  const sources = await inspectDisks(chosen, context, { keys, raw, held });

  const contents = sources.flatMap((source) => source.contents);
  const chunkSize = chunkSizeFor(Math.max(...contents.map(({ partition }) => partition.size)));
  const upload = await server.openUpload(
    { taskId: task.id, attempt: task.attempt, image, estimateBytes: usedBytes(contents) },
    signal,
  );
  const { files, disks } = await transfer({
    sources,
    chunkSize,
    level,
    rescue,
    uploadId: upload.uploadId,
    context,
  });

  context.step('publish', { message: `version ${upload.version}` });
  for (const [name, bytes] of files) await server.putFile(upload.uploadId, name, bytes, signal);
  const manifest: Manifest = {
    format: 1,
    image,
    version: upload.version,
    derivedFrom: null,
    createdAt: new Date().toISOString(),
    firmware: context.identity.firmware,
    chunkSize,
    disks,
    os: contents.find(({ os }) => os !== null)?.os ?? null,
    tools: await toolVersions(signal),
  };
  const published = await server.publish(upload.uploadId, manifest, signal);
  context.showImage({ name: image, version: published.version });
  await proveVersion(published, manifest, context);
  for (const source of sources) await proveUntouched(source, context);
  const from = chosen.map(({ path, serial }) => `${path} (serial ${serial ?? 'none'})`).join(' and ');
  return {
    summary: `${image} version ${published.version}: ${contents.length} partitions of ${from}${damageSummary(disks.flatMap(({ partitions }) => partitions))}`,
  };
};

/** @throws ImagingError UNLOCK_FAILED: the task was given keys, and the server has them no more */
const unlockKeys = ({ params, secrets }: TaskOf<'capture'>): readonly string[] => {
  if (params.unlock && !secrets) {
    throw new ImagingError(
      'UNLOCK_FAILED',
      'Cannot unlock anything: the server was restarted and keeps no keys; add the task again with its keys',
    );
  }
  return secrets?.unlock ?? [];
};

const usedBytes = (contents: readonly Content[]): number =>
  contents.flatMap(({ extents }) => extents).reduce((sum, { length }) => sum + length, 0);

interface TransferOptions {
  sources: readonly SourceDisk[];
  /** bytes; the manifest carries it */
  chunkSize: number;
  level: number;
  rescue: boolean;
  uploadId: string;
  context: TaskContext;
}

/** All chunks of all disks to the server; the files of the version besides its manifest. */
const transfer = async (options: TransferOptions) => {
  const { sources, chunkSize, level, rescue, uploadId, context } = options;
  const traffic: Traffic = { sent: 0, received: 0 };
  const tally = createTally(traffic);
  const files = new Map<string, Uint8Array>();
  const disks: ImageDisk[] = [];
  const sink = serverSink(context.server, uploadId, traffic);
  const total = sources
    .flatMap(({ contents }) => contents)
    .filter(({ partition }) => partition.method !== 'recreate')
    .reduce(
      (sum, content) => sum + chunkUsage(content.extents, chunkSize, content.partition.size).usedBytes,
      0,
    );
  const step = context.step('transfer', { total });
  const pool = createPool();
  const readers = sources.some(({ disk }) => disk.rotational) ? 1 : pool.workers;
  step.watch(createBusyMeter(pool, readers));
  try {
    for (const source of sources) {
      const partitions: ImagePartition[] = [];
      for (const content of source.contents) {
        const { partition } = content;
        if (partition.method === 'recreate') {
          partitions.push({ ...partition, index: null, map: null });
          continue;
        }
        step.say(`${partition.name} ${partition.filesystem?.type ?? 'raw'}`);
        const place = { partition, path: content.node, readFrom: content.source.start };
        const captured = await captureRange({
          ...content.source,
          size: partition.size,
          extents: content.extents,
          chunkSize,
          level,
          sink,
          pool,
          rotational: source.disk.rotational,
          rescue,
          onRescue: () => step.say(`${partition.name}: reading around bad sectors`),
          onProgress: step.add,
          signal: context.signal,
        }).catch(async (error: unknown) => {
          throw await explainReadError(error, place, context);
        });
        tally.add(captured.stats);
        const damaged = await noteDamage(captured.damaged, place, context);
        partitions.push({ ...withFiles(partition, chunkSize, captured, files), damaged });
      }
      disks.push(await imageDiskOf(source, partitions, files));
    }
  } finally {
    context.showStats(tally.total());
    await pool.close();
  }
  return { files, disks };
};

const withFiles = (
  partition: Content['partition'],
  chunkSize: number,
  { index, map }: Captured,
  files: Map<string, Uint8Array>,
): ImagePartition => {
  const names = { index: `${partition.name}.caibx`, map: `${partition.name}.map` };
  files.set(names.index, index);
  files.set(names.map, map);
  return {
    ...partition,
    index: { ...imageFile(names.index, index), chunks: Math.ceil(partition.size / chunkSize) },
    map: imageFile(names.map, map),
  };
};

const proveVersion = async (
  published: { image: string; version: number },
  manifest: Manifest,
  context: TaskContext,
): Promise<void> => {
  const signed = await context.server.version(published.image, published.version, context.signal);
  const kept = verifyManifest(signed, context.config.publicKey);
  if (manifestText(kept) !== manifestText(manifest)) {
    throw new ImagingError(
      'IMAGE_INVALID',
      'Cannot confirm the version: the server keeps another manifest than was sent',
    );
  }
  context.prove(
    `${published.image} version ${published.version} is published`,
    `manifest read back, signature of key ${signed.keyId} checked, every chunk found by the server`,
  );
};
