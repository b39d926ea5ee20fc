import { randomUUID } from 'node:crypto';
import { copyFile, mkdir, rm, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { hasCode, ImagingError, isImagingError } from '../../../agent/errors.ts';
import { decodeCaibx } from '../../../agent/image/caibx.ts';
import type { ChunkSink } from '../../../agent/image/chunk-store.ts';
import { parseManifest } from '../../../agent/image/manifest.ts';
import { type ChunkPool, createPool } from '../../../agent/image/pool.ts';
import { type ImagePartition, idsPerRequest, type Manifest } from '../../../agent/protocol/index.ts';
import type { State } from '../../state.ts';
import { reserveVersion } from '../../store/images.ts';
import { addUpload, openUploadsOf, type Upload } from '../../store/uploads.ts';
import { hashBytes } from '../durable.ts';
import { checkChunks } from '../hurt.ts';
import { publishVersion } from '../publish.ts';
import { collectChunks } from '../remove.ts';
import { abandonUpload, keepChunks, missingChunks, uploadFolder } from '../uploads.ts';
import { filesOf, versionFolder } from '../version-folder.ts';
import type { ShrinkPlan } from './layout.ts';
import { roundUp } from './round.ts';
import { scratchFolder, withScratch } from './scratch.ts';
import { type SmallerPartition, shrinkPartition, spaceOf, workOf } from './shrink-partition.ts';

export interface DeriveOptions {
  /** of the version that a person captured */
  manifest: Manifest;
  plan: ShrinkPlan;
  onTotal: (bytes: number) => void;
  onStep: (text: string) => void;
  onProgress: (bytes: number) => void;
  signal: AbortSignal;
}

/** the pool that this work has for itself: captures that come in meanwhile have the library's */
const POOL_MEMORY = 96 * 1024 * 1024;
/** what stands for a task in the uploads of derived versions */
const PREFIX = 'derive-';

/**
 * Make a smaller version: every partition that changes is put together in the scratch space, made smaller, checked
 * and cut into chunks again; only changed chunks are stored. It is published like a capture's, or not at all.
 *
 * @returns its number
 * @throws ImagingError SCRATCH_FULL, TARGET_TOO_SMALL, FILESYSTEM_CHECK_FAILED, CHUNK_MISSING, CHUNK_CORRUPT (the
 *   version it comes from is hurt), TOOL_FAILED …, TASK_CANCELLED
 */
export const deriveVersion = async (state: State, options: DeriveOptions): Promise<number> => {
  const { manifest, plan, signal } = options;
  const { image, chunkSize } = manifest;
  const from = versionFolder(state.paths.images, image, manifest.version);
  const parts = plan.smaller.map(({ partition, size }) => ({ partition, size, chunkSize, from }));
  options.onTotal((await Promise.all(parts.map(workOf))).reduce((sum, bytes) => sum + bytes, 0));
  const spaces = await Promise.all(parts.map(spaceOf));
  const needed =
    Math.max(...spaces.map(({ scratch }) => scratch), 0) +
    spaces.reduce((sum, { stored }) => sum + stored, 0);

  let upload: Upload | undefined;
  try {
    return await withScratch(state, needed, signal, async (scratch, bounded) => {
      upload = await openDerived(state, manifest);
      const smaller = await shrinkAll(state, options, parts, { scratch, upload, signal: bounded });
      options.onStep('publishing');
      await publishDerived(state, upload, options, smaller);
      return upload.version;
    });
  } catch (error) {
    // the scratch space is given back before this: on a full disk the database could not write
    if (upload) await abandonUpload(state, upload.taskId);
    if (hasCode(error, 'SCRATCH_FULL')) await collectChunks(state);
    await lookAtChunk(state, error);
    throw error;
  }
};

const shrinkAll = async (
  state: State,
  options: DeriveOptions,
  parts: readonly Omit<Part, keyof Place>[],
  place: Omit<Place, 'pool'>,
): Promise<SmallerPartition[]> => {
  // agents and their heartbeats come first
  const workers = Math.max(1, Math.floor(availableParallelism() / 2));
  const pool = createPool({ memory: POOL_MEMORY, workers });
  try {
    const smaller: SmallerPartition[] = [];
    for (const part of parts) smaller.push(await shrinkOne(state, options, { ...part, ...place, pool }));
    return smaller;
  } finally {
    await pool.close();
  }
};

/** At the start of a server: nothing is being made, so what is there was left by one that was killed. */
export const cleanUpDerived = async (state: State): Promise<void> => {
  await rm(scratchFolder(state), { recursive: true, force: true });
  for (const { taskId } of await openUploadsOf(state.db, PREFIX)) await abandonUpload(state, taskId);
};

/** An upload as a capture has one; every chunk of the version it comes from is pinned: it must not go meanwhile. */
const openDerived = async (state: State, { image, version }: Manifest): Promise<Upload> => {
  const at = new Date(state.now());
  const number = await reserveVersion(state.db, image, at);
  const upload = await addUpload(
    state.db,
    { taskId: `${PREFIX}${randomUUID()}`, image, version: number },
    at,
  );
  await mkdir(uploadFolder(state, upload.id), { recursive: true });
  const ids = [...(await state.library.indexOf(image, version)).ids];
  for (let at = 0; at < ids.length; at += idsPerRequest) {
    await missingChunks(state, upload, ids.slice(at, at + idsPerRequest));
  }
  return upload;
};

interface Place {
  scratch: string;
  upload: Upload;
  pool: ChunkPool;
  signal: AbortSignal;
}

interface Part extends Place {
  partition: ImagePartition;
  size: number;
  chunkSize: number;
  from: string;
}

const shrinkOne = async (
  state: State,
  { plan, onStep, onProgress }: DeriveOptions,
  part: Part,
): Promise<SmallerPartition> => {
  const sink: ChunkSink = {
    missing: async (ids) => new Set(await missingChunks(state, part.upload, ids)),
    put: async (chunks, signal) => {
      await keepChunks(state, part.upload, chunks, signal);
    },
  };
  const { store } = state.library;
  const smaller = await shrinkPartition({ ...part, store, sink, onStep, onProgress }).catch(
    (error: unknown) => {
      throw spokenOfDisk(error, part, plan);
    },
  );
  const folder = uploadFolder(state, part.upload.id);
  await writeFile(join(folder, `${part.partition.name}.caibx`), smaller.index);
  await writeFile(join(folder, `${part.partition.name}.map`), smaller.map);
  return smaller;
};

/** A tool knows what its filesystem needs; who waits for a version wants to know how large a disk has to be. */
const spokenOfDisk = (error: unknown, { partition, size }: Part, plan: ShrinkPlan): unknown => {
  if (!isImagingError(error) || !hasCode(error, 'TARGET_TOO_SMALL')) return error;
  const disk = plan.disks.find(({ partitions }) => partitions.some(({ name }) => name === partition.name));
  const needed = error.details['neededBytes'];
  const neededBytes = typeof needed === 'number' && disk ? roundUp(disk.size + needed - size) : null;
  return new ImagingError(
    'TARGET_TOO_SMALL',
    `Cannot fit the image into ${disk?.size} bytes${neededBytes === null ? '' : `, it needs ${neededBytes}`}: ${partition.name}: ${error.message}`,
    { details: { neededBytes, availableBytes: disk?.size ?? null, partition: partition.name }, cause: error },
  );
};

const publishDerived = async (
  state: State,
  upload: Upload,
  { manifest, plan }: DeriveOptions,
  smaller: readonly SmallerPartition[],
): Promise<void> => {
  const changed = new Map(smaller.map((one) => [one.partition.name, one]));
  const derived = parseManifest({
    ...manifest,
    version: upload.version,
    derivedFrom: manifest.version,
    createdAt: new Date(state.now()).toISOString(),
    disks: plan.disks.map((disk) => ({
      ...disk,
      partitions: disk.partitions.map((partition) => withContent(partition, changed.get(partition.name))),
    })),
  });
  const from = versionFolder(state.paths.images, manifest.image, manifest.version);
  for (const { name } of filesOf(derived)) {
    if (changed.has(name.split('.')[0] ?? '')) continue;
    await copyFile(join(from, name), join(uploadFolder(state, upload.id), name));
  }
  await publishVersion(state, upload, derived);
};

/** The place is the new layout's, facts and files are of the content. */
const withContent = (place: ImagePartition, smaller: SmallerPartition | undefined): ImagePartition => {
  if (!smaller) return place;
  const { partition, index, map } = smaller;
  const { name } = place;
  return {
    ...place,
    filesystem: partition.filesystem,
    contains: partition.contains,
    index: {
      ...{ name: `${name}.caibx`, size: index.length, sha256: hashBytes(index) },
      chunks: decodeCaibx(index).ids.length,
    },
    map: { name: `${name}.map`, size: map.length, sha256: hashBytes(map) },
  };
};

/** A chunk that could not be used: the store looks for itself, and marks what needs it as hurt. */
const lookAtChunk = async (state: State, error: unknown): Promise<void> => {
  if (!isImagingError(error) || (error.code !== 'CHUNK_CORRUPT' && error.code !== 'CHUNK_MISSING')) return;
  const id = error.details['id'];
  if (typeof id === 'string') await checkChunks(state, [id]);
};
