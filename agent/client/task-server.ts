import type { Readable } from 'node:stream';
import type { z } from 'zod';
import { ImagingError } from '../errors.ts';
import type { StoredChunk } from '../image/chunk-store.ts';
import { packStream, unpack } from '../image/pack.ts';
import * as wire from '../protocol/index.ts';
import {
  type checkInAnswerSchema,
  type checkInRequestSchema,
  type deriveAnswerSchema,
  type deriveRequestSchema,
  type Inventory,
  type logSchema,
  longPollSeconds,
  type Manifest,
  type nextAnswerSchema,
  type openUploadAnswerSchema,
  type openUploadSchema,
  type Progress,
  type publishAnswerSchema,
  type SignedManifest,
  type TaskResult,
  type taskAnswerSchema,
} from '../protocol/index.ts';
import { waitOut } from './backoff.ts';
import { createHttp, type HttpOptions } from './http.ts';

type Input<S extends z.ZodType> = z.input<S>;
type Output<S extends z.ZodType> = z.output<S>;
type TaskAnswer = Output<typeof taskAnswerSchema>;

/** The task server as the agent sees it. Every call but `progress` and `heartbeat` waits out an outage. */
export interface TaskServer {
  /** Trade the boot token for a session; further calls carry it. */
  checkIn(
    request: Input<typeof checkInRequestSchema>,
    signal: AbortSignal,
  ): Promise<Output<typeof checkInAnswerSchema>>;
  /** Go on with a session that an earlier run of the agent in this boot obtained. */
  resumeSession(session: string): void;
  next(signal: AbortSignal): Promise<Output<typeof nextAnswerSchema>>;
  heartbeat(taskId: string, attempt: number, signal: AbortSignal): Promise<TaskAnswer>;
  progress(taskId: string, progress: Progress, signal: AbortSignal): Promise<TaskAnswer>;
  log(taskId: string, log: Input<typeof logSchema>, signal: AbortSignal): Promise<TaskAnswer>;
  result(taskId: string, result: TaskResult, signal: AbortSignal): Promise<TaskAnswer>;
  /** A version of the task's image that fits smaller disks; asked again until it is ready. */
  derive(
    taskId: string,
    request: Input<typeof deriveRequestSchema>,
    signal: AbortSignal,
  ): Promise<Output<typeof deriveAnswerSchema>>;
  inventory(inventory: Inventory, signal: AbortSignal): Promise<void>;
  openUpload(
    request: Input<typeof openUploadSchema>,
    signal: AbortSignal,
  ): Promise<Output<typeof openUploadAnswerSchema>>;
  missing(uploadId: string, ids: readonly string[], signal: AbortSignal): Promise<string[]>;
  sendPack(uploadId: string, chunks: readonly StoredChunk[], signal: AbortSignal): Promise<void>;
  putFile(uploadId: string, name: string, bytes: Uint8Array, signal: AbortSignal): Promise<void>;
  publish(
    uploadId: string,
    manifest: Manifest,
    signal: AbortSignal,
  ): Promise<Output<typeof publishAnswerSchema>>;
  /** Versions of an image that this machine may read, the one of its newest task first. */
  ownVersions(image: string, signal: AbortSignal): Promise<number[]>;
  version(image: string, version: number, signal: AbortSignal): Promise<SignedManifest>;
  file(image: string, version: number, name: string, limit: number, signal: AbortSignal): Promise<Uint8Array>;
  /** One pack; an interrupted one is the caller's to ask again, for what did not arrive. */
  fetchPack(
    image: string,
    version: number,
    ids: readonly string[],
    maxFrame: number,
    signal: AbortSignal,
  ): AsyncIterable<StoredChunk>;
  close(): void;
}

export interface TaskServerOptions extends HttpOptions {
  onWait?: (error: Error, waitSeconds: number) => void;
}

const PACK_IDLE_MS = 60_000;

export const createTaskServer = ({ onWait, ...options }: TaskServerOptions): TaskServer => {
  const http = createHttp(options);
  const patient = <T>(signal: AbortSignal, attempt: () => Promise<T>): Promise<T> =>
    waitOut(attempt, { signal, ...(onWait ? { onWait } : {}) });
  const post = <S extends z.ZodType>(
    schema: S,
    path: string,
    json: unknown,
    signal: AbortSignal,
  ): Promise<Output<S>> => patient(signal, () => http.json(schema, { method: 'POST', path, json, signal }));

  return {
    checkIn: async (request, signal) => {
      const answer = await post(wire.checkInAnswerSchema, '/agent/v1/check-in', request, signal);
      http.authorize(answer.session);
      return answer;
    },
    resumeSession: http.authorize,
    next: (signal) =>
      patient(signal, () =>
        http.json(wire.nextAnswerSchema, {
          method: 'POST',
          path: '/agent/v1/next',
          json: {},
          idleMs: (longPollSeconds + 20) * 1000,
          signal,
        }),
      ),
    heartbeat: (taskId, attempt, signal) =>
      http.json(wire.taskAnswerSchema, {
        method: 'POST',
        path: `/agent/v1/tasks/${taskId}/heartbeat`,
        json: { attempt },
        idleMs: 10_000,
        signal,
      }),
    progress: (taskId, progress, signal) =>
      http.json(wire.taskAnswerSchema, {
        method: 'POST',
        path: `/agent/v1/tasks/${taskId}/progress`,
        json: progress,
        idleMs: 10_000,
        signal,
      }),
    log: (taskId, log, signal) => post(wire.taskAnswerSchema, `/agent/v1/tasks/${taskId}/log`, log, signal),
    result: (taskId, result, signal) =>
      post(wire.taskAnswerSchema, `/agent/v1/tasks/${taskId}/result`, result, signal),
    derive: (taskId, request, signal) =>
      post(wire.deriveAnswerSchema, `/agent/v1/tasks/${taskId}/derive`, request, signal),
    inventory: async (inventory, signal) => {
      await post(wire.taskAnswerSchema, '/agent/v1/inventory', { inventory }, signal);
    },
    openUpload: (request, signal) => post(wire.openUploadAnswerSchema, '/agent/v1/uploads', request, signal),
    missing: async (uploadId, ids, signal) =>
      (await post(wire.missingAnswerSchema, '/agent/v1/chunks/missing', { uploadId, ids }, signal)).missing,
    sendPack: async (uploadId, chunks, signal) => {
      await patient(signal, () =>
        http.json(wire.packAnswerSchema, {
          method: 'POST',
          path: `/agent/v1/packs?upload=${uploadId}`,
          body: packStream(chunks),
          idleMs: PACK_IDLE_MS,
          signal,
        }),
      );
    },
    putFile: async (uploadId, name, bytes, signal) => {
      await patient(signal, () =>
        http.json(wire.taskAnswerSchema, {
          method: 'PUT',
          path: `/agent/v1/uploads/${uploadId}/files/${name}`,
          body: bytes,
          idleMs: PACK_IDLE_MS,
          signal,
        }),
      );
    },
    publish: (uploadId, manifest, signal) =>
      patient(signal, () =>
        http.json(wire.publishAnswerSchema, {
          method: 'POST',
          path: `/agent/v1/uploads/${uploadId}/publish`,
          json: { manifest },
          // the server looks at every chunk once more
          idleMs: 600_000,
          signal,
        }),
      ),
    ownVersions: async (image, signal) => {
      const path = `/agent/v1/images/${image}/versions`;
      const schema = wire.ownVersionsAnswerSchema;
      return (await patient(signal, () => http.json(schema, { method: 'GET', path, signal }))).versions;
    },
    version: (image, version, signal) =>
      patient(signal, () =>
        http.json(wire.signedManifestSchema, { method: 'GET', path: versionPath(image, version), signal }),
      ),
    file: (image, version, name, limit, signal) =>
      patient(signal, async () => {
        const path = `${versionPath(image, version)}/files/${name}`;
        return readBounded(await http.stream({ method: 'GET', path, signal }), limit, path);
      }),
    fetchPack: (image, version, ids, maxFrame, signal) =>
      fetchPack(http.stream, { image, version, ids: [...ids] }, maxFrame, signal),
    close: http.close,
  };
};

const versionPath = (image: string, version: number): string =>
  `/agent/v1/images/${image}/versions/${version}`;

async function* fetchPack(
  stream: ReturnType<typeof createHttp>['stream'],
  json: { image: string; version: number; ids: string[] },
  maxFrame: number,
  signal: AbortSignal,
): AsyncGenerator<StoredChunk> {
  const path = '/agent/v1/packs/fetch';
  const body = await stream({ method: 'POST', path, json, idleMs: PACK_IDLE_MS, signal });
  yield* unpack(body, { maxFrame, signal });
}

const readBounded = async (body: Readable, limit: number, path: string): Promise<Uint8Array> => {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of body as AsyncIterable<Uint8Array>) {
    size += part.length;
    if (size > limit) throw new ImagingError('SERVER_ERROR', `Cannot read ${path}: over ${limit} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts);
};
