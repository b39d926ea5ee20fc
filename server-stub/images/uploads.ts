import { createWriteStream } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { ImagingError } from '../../agent/errors.ts';
import type { StoredChunk } from '../../agent/image/chunk-store.ts';
import { unpack } from '../../agent/image/pack.ts';
import { chunksPerPack, frameLimit } from '../../agent/protocol/index.ts';
import type { TaskRow } from '../queue/task-row.ts';
import type { State } from '../state.ts';
import { damagedChunks, pinChunks, recordChunks, soundChunks } from '../store/chunks.ts';
import { reserveVersion } from '../store/images.ts';
import { addUpload, endUpload, findUpload, type Upload } from '../store/uploads.ts';
import { syncPath } from './durable.ts';
import { chunksHealed } from './hurt.ts';
import { requireSpace } from './space.ts';

const MIB = 1024 * 1024;
/** the format's largest chunk */
const MAX_CHUNK = 16 * MIB;
/** received chunks are checked and made durable in portions of at most this many bytes */
const PORTION = 32 * MIB;

/**
 * The upload of a capture: a new one with a number of its own, or that of an earlier attempt of the same
 * task, whose pins still hold, so that chunks that arrived are not sent again.
 *
 * @throws ImagingError STORE_FULL (what is free is kept back), CONFLICT (the upload has ended)
 */
export const openUpload = async (state: State, task: TaskRow, image: string): Promise<Upload> => {
  const earlier = await findUpload(state.db, { taskId: task.id });
  if (earlier && earlier.state !== 'open') {
    throw new ImagingError('CONFLICT', `Cannot open an upload: that of task ${task.id} is ${earlier.state}`);
  }
  await requireSpace(state, 0);
  const upload = earlier ?? (await newUpload(state, task, image));
  await mkdir(uploadFolder(state, upload.id), { recursive: true });
  return upload;
};

const newUpload = async (state: State, task: TaskRow, image: string): Promise<Upload> => {
  const at = new Date(state.now());
  const version = await reserveVersion(state.db, image, at);
  return addUpload(state.db, { taskId: task.id, image, version }, at);
};

export const uploadFolder = (state: State, id: string): string => join(state.paths.uploads, id);

/** Which of these the agent is to send. The others are pinned: they stay until the upload ends. */
export const missingChunks = (state: State, upload: Upload, ids: readonly string[]): Promise<string[]> =>
  state.library.lock.shared(async () => {
    const stored = await soundChunks(state.db, ids);
    const known = [...new Set(ids)].filter((id) => stored.has(id));
    await pinChunks(state.db, upload.id, known);
    return [...new Set(ids)].filter((id) => !stored.has(id));
  });

/**
 * Take a pack: every chunk is checked before it is kept, and all are durable before this resolves. When it
 * fails in the middle, what was kept before is sound, pinned, and not sent again.
 *
 * @throws ImagingError CHUNK_CORRUPT, STORE_FULL, BAD_REQUEST (not a pack)
 */
export const receivePack = async (
  state: State,
  upload: Upload,
  body: Readable,
  signal: AbortSignal,
): Promise<{ stored: number; known: number }> => {
  const total = { stored: 0, known: 0 };
  let portion: StoredChunk[] = [];
  let bytes = 0;
  const flush = async (): Promise<void> => {
    if (portion.length === 0) return;
    const { stored, known } = await keepChunks(state, upload, portion, signal);
    total.stored += stored;
    total.known += known;
    portion = [];
    bytes = 0;
  };
  for await (const chunk of unpack(body, {
    maxFrame: frameLimit(MAX_CHUNK),
    maxChunks: chunksPerPack,
    signal,
  })) {
    portion.push(chunk);
    bytes += chunk.frame.length;
    if (bytes >= PORTION) await flush();
  }
  await flush();
  return total;
};

/** Check chunks and keep them, pinned for this upload; durable when this resolves. @throws as receivePack */
export const keepChunks = (
  state: State,
  upload: Upload,
  chunks: readonly StoredChunk[],
  signal: AbortSignal,
): Promise<{ stored: number; known: number }> =>
  state.library.lock.shared(async () => {
    const ids = chunks.map(({ id }) => id);
    const sound = await soundChunks(state.db, ids);
    const wanted = chunks.filter(({ id }) => !sound.has(id));
    const damaged = await damagedChunks(state.db, ids);
    await requireSpace(
      state,
      wanted.reduce((sum, { frame }) => sum + frame.length, 0),
    );
    const { store } = state.library;
    // replace: what lies there under this name, if anything, is damaged or was never acknowledged
    await store.put(wanted, signal, { replace: true });
    await recordChunks(
      state.db,
      wanted.map(({ id, frame }) => ({ id, size: frame.length })),
    );
    await pinChunks(state.db, upload.id, ids);
    if (damaged.size > 0) await chunksHealed(state, damaged);
    return { stored: wanted.length, known: chunks.length - wanted.length };
  });

/**
 * Keep a file of the version that is being uploaded; a repeated upload replaces it. `limit` in bytes.
 * @throws ImagingError BAD_REQUEST (too large), STORE_FULL
 */
export const receiveFile = async (
  state: State,
  upload: Upload,
  name: string,
  body: Readable,
  limit: number,
): Promise<void> => {
  await requireSpace(state, 0);
  const path = join(uploadFolder(state, upload.id), name);
  const part = `${path}.part`;
  let size = 0;
  try {
    await pipeline(
      body,
      async function* bounded(source: AsyncIterable<Buffer>) {
        for await (const bytes of source) {
          size += bytes.length;
          if (size > limit) {
            throw new ImagingError('BAD_REQUEST', `Cannot keep ${name}: it has more than ${limit} bytes`);
          }
          yield bytes;
        }
      },
      createWriteStream(part),
    );
    await syncPath(part);
    await rename(part, path);
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
};

/** The capture has ended without a version: its files go, its chunks are no longer held. */
export const abandonUpload = async (state: State, taskId: string): Promise<void> => {
  const upload = await findUpload(state.db, { taskId });
  if (upload?.state !== 'open') return;
  await endUpload(state.db, upload.id, 'abandoned');
  await rm(uploadFolder(state, upload.id), { recursive: true, force: true });
};
