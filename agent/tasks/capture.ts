import { open } from 'node:fs/promises';
import { serverSink, type Traffic } from '../client/server-chunks.ts';
import { type Disk, listDisks } from '../disk/disk.ts';
import { selectDisk } from '../disk/select.ts';
import { type DiskTable, readTable } from '../disk/table.ts';
import { ImagingError } from '../errors.ts';
import { createBusyMeter } from '../image/busy.ts';
import { captureRange } from '../image/capture.ts';
import { chunkSizeFor, chunkUsage } from '../image/grid.ts';
import { manifestText, verifyManifest } from '../image/manifest.ts';
import { createPool } from '../image/pool.ts';
import type { ImagePartition, Manifest } from '../protocol/index.ts';
import { type Content, inspectContent } from './capture-inspect.ts';
import type { Handler, TaskContext } from './context.ts';
import { damageSummary, explainReadError, noteDamage } from './damage.ts';
import { bytesWrittenTo, identityOf, imageFile } from './disk-facts.ts';
import { createTally } from './tally.ts';
import { toolVersions } from './tool-versions.ts';

const BOOT_AREA_LIMIT = 1024 * 1024;

/**
 * Make a new version of an image from this machine's disk. The disk stays read-only from beginning to
 * end; the version exists only once the server has published its manifest.
 */
export const capture: Handler<'capture'> = async (task, context) => {
  const { signal, server } = context;
  const { image, level, rescue } = task.params;

  context.step('inspect');
  const disk = selectDisk(await listDisks({ signal }), task.params.disk, 'capture');
  context.showDisk(identityOf(disk));
  const writtenBefore = await bytesWrittenTo(disk);
  const table = await readTable(disk.path, { signal });
  if (table.kind === 'none') {
    throw new ImagingError('LAYOUT_UNSUPPORTED', `Cannot capture ${disk.path}: it has no partition table`);
  }
  const contents = await inspectContent(disk, table, context);

  const chunkSize = chunkSizeFor(Math.max(...contents.map(({ partition }) => partition.size)));
  const used = contents.flatMap(({ extents }) => extents).reduce((sum, { length }) => sum + length, 0);
  const upload = await server.openUpload(
    { taskId: task.id, attempt: task.attempt, image, estimateBytes: used },
    signal,
  );
  const { files, partitions, stats } = await transfer({
    disk,
    table,
    contents,
    chunkSize,
    level,
    rescue,
    uploadId: upload.uploadId,
    context,
  });

  context.step('publish', { message: `version ${upload.version}` });
  const bootArea = await readBootArea(disk, table);
  if (bootArea) files.set('d1.boot', bootArea);
  for (const [name, bytes] of files) await server.putFile(upload.uploadId, name, bytes, signal);
  const manifest: Manifest = {
    format: 1,
    image,
    version: upload.version,
    derivedFrom: null,
    createdAt: new Date().toISOString(),
    firmware: context.identity.firmware,
    chunkSize,
    disks: [
      {
        name: 'd1',
        size: disk.size,
        logicalSectorSize: disk.logicalSectorSize === 4096 ? 4096 : 512,
        model: disk.model ?? '',
        serial: disk.serial ?? '',
        table: table.kind,
        tableId: table.id,
        bootArea: bootArea ? imageFile('d1.boot', bootArea) : null,
        extended: null,
        partitions,
      },
    ],
    os: contents.find(({ os }) => os !== null)?.os ?? null,
    tools: await toolVersions(signal),
  };
  const published = await server.publish(upload.uploadId, manifest, signal);
  await proveVersion(published, manifest, context);
  await proveUntouched(disk, writtenBefore, context);
  return {
    summary: `${image} version ${published.version}: ${partitions.length} partitions of ${disk.path} (serial ${disk.serial ?? 'none'})${damageSummary(partitions)}`,
    image: { name: image, version: published.version },
    stats,
  };
};

interface TransferOptions {
  disk: Disk;
  table: DiskTable;
  contents: Content[];
  /** bytes; the manifest carries it */
  chunkSize: number;
  level: number;
  rescue: boolean;
  uploadId: string;
  context: TaskContext;
}

const transfer = async (options: TransferOptions) => {
  const { disk, table, contents, chunkSize, level, rescue, uploadId, context } = options;
  const traffic: Traffic = { sent: 0, received: 0 };
  const tally = createTally(traffic);
  const files = new Map<string, Uint8Array>();
  const partitions: ImagePartition[] = [];
  const sink = serverSink(context.server, uploadId, traffic);
  const total = contents
    .filter(({ partition }) => partition.method !== 'recreate')
    .reduce(
      (sum, { partition, extents }) => sum + chunkUsage(extents, chunkSize, partition.size).usedBytes,
      0,
    );
  const step = context.step('transfer', { total });
  const pool = createPool();
  step.watch(createBusyMeter(pool, disk.rotational ? 1 : pool.workers));
  try {
    for (const { partition, extents } of contents) {
      if (partition.method === 'recreate') {
        partitions.push({ ...partition, index: null, map: null });
        continue;
      }
      step.say(`${partition.name} ${partition.filesystem?.type ?? 'raw'}`);
      const path = table.partitions.find(({ number }) => number === partition.number)?.path ?? disk.path;
      const place = { partition, path };
      const captured = await captureRange({
        device: disk.path,
        start: partition.start,
        size: partition.size,
        extents,
        chunkSize,
        level,
        sink,
        pool,
        rotational: disk.rotational,
        rescue,
        onRescue: () => step.say(`${partition.name}: reading around bad sectors`),
        onProgress: step.add,
        signal: context.signal,
      }).catch(async (error: unknown) => {
        throw await explainReadError(error, place, context);
      });
      tally.add(captured.stats);
      files.set(`${partition.name}.caibx`, captured.index);
      files.set(`${partition.name}.map`, captured.map);
      partitions.push({
        ...partition,
        index: {
          ...imageFile(`${partition.name}.caibx`, captured.index),
          chunks: Math.ceil(partition.size / chunkSize),
        },
        map: imageFile(`${partition.name}.map`, captured.map),
        damaged: await noteDamage(captured.damaged, place, context),
      });
    }
  } finally {
    await pool.close();
  }
  return { files, partitions, stats: tally.total() };
};

/** First bytes of the disk up to the first partition: boot code and, on MBR, what GRUB keeps in the gap. */
const readBootArea = async (disk: Disk, table: DiskTable): Promise<Uint8Array | null> => {
  const end = Math.min(...table.partitions.map(({ start }) => start), BOOT_AREA_LIMIT);
  const bytes = Buffer.alloc(end);
  await using file = await open(disk.path, 'r');
  const { bytesRead } = await file.read(bytes, 0, end, 0);
  return bytesRead === end ? bytes : null;
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

const proveUntouched = async (disk: Disk, before: number, context: TaskContext): Promise<void> => {
  const after = await bytesWrittenTo(disk);
  if (after !== before) {
    throw new ImagingError(
      'DISK_CHANGED',
      `Cannot trust the capture: ${disk.path} was written to (${after - before} bytes)`,
    );
  }
  context.prove(
    'the source was not written to',
    `the kernel counts ${after - before} bytes written to ${disk.path} meanwhile`,
  );
};
