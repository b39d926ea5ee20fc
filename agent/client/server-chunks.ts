import { ImagingError, isImagingError } from '../errors.ts';
import type { ChunkSink, ChunkSource, StoredChunk } from '../image/chunk-store.ts';
import { frameLimit } from '../protocol/index.ts';
import { waitOut } from './backoff.ts';
import type { TaskServer } from './task-server.ts';

/** Chunk frame bytes that crossed the network. */
export interface Traffic {
  sent: number;
  received: number;
}

/** A capture's chunks go to its upload on the server. */
export const serverSink = (server: TaskServer, uploadId: string, traffic: Traffic): ChunkSink => ({
  missing: async (ids, signal) => new Set(await server.missing(uploadId, ids, signal)),
  put: async (chunks, signal) => {
    await server.sendPack(uploadId, chunks, signal);
    for (const { frame } of chunks) traffic.sent += frame.length;
  },
});

export interface ServerSourceOptions {
  server: TaskServer;
  image: string;
  version: number;
  chunkSize: number;
  traffic: Traffic;
  onWait?: (error: Error, waitSeconds: number) => void;
}

/**
 * A deploy's chunks come from one image version on the server. When a pack breaks off, what did not
 * arrive is asked for again, so that a cut cable costs at most the chunk that was on the wire.
 */
export const serverSource = ({
  server,
  image,
  version,
  chunkSize,
  traffic,
  onWait,
}: ServerSourceOptions): ChunkSource => ({
  async *fetch(ids: readonly string[], signal: AbortSignal): AsyncGenerator<StoredChunk> {
    const wanted = new Set(ids);
    while (wanted.size > 0) {
      // each round that brings something starts the patience anew
      const round = await waitOut(
        () => begin(server.fetchPack(image, version, [...wanted], frameLimit(chunkSize), signal)),
        {
          signal,
          ...(onWait ? { onWait } : {}),
        },
      );
      try {
        for await (const chunk of round) {
          if (!wanted.delete(chunk.id)) throw notAsked(chunk.id);
          traffic.received += chunk.frame.length;
          yield chunk;
        }
        if (wanted.size > 0) throw incomplete(wanted.size);
      } catch (thrown) {
        const error = cutOff(thrown, signal);
        if (!error.retryable) throw error;
        onWait?.(error, 0);
      }
    }
  },
});

/** The first chunk of a round, so that a server that is away is waited for before anything is used. */
const begin = async (round: AsyncIterable<StoredChunk>): Promise<AsyncIterable<StoredChunk>> => {
  const iterator = round[Symbol.asyncIterator]();
  const first = await iterator.next().catch((error: unknown) => {
    throw cutOff(error);
  });
  if (first.done) throw incomplete(0);
  return {
    async *[Symbol.asyncIterator]() {
      try {
        yield first.value;
        for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield next.value;
      } finally {
        await iterator.return?.();
      }
    },
  };
};

const cutOff = (error: unknown, signal?: AbortSignal): ImagingError => {
  if (signal?.aborted) {
    return isImagingError(signal.reason)
      ? signal.reason
      : new ImagingError('TASK_CANCELLED', 'Cannot receive chunks: cancelled', { cause: signal.reason });
  }
  if (isImagingError(error)) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new ImagingError('SERVER_UNREACHABLE', `Cannot receive chunks: ${reason}`, { cause: error });
};

const incomplete = (left: number): ImagingError =>
  new ImagingError('SERVER_ERROR', `Cannot receive chunks: the pack ended ${left} chunks early`);

const notAsked = (id: string): ImagingError =>
  new ImagingError('SERVER_ERROR', `Cannot receive chunks: ${id} was not asked for, or came twice`);
