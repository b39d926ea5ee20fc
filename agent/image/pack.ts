import { addAbortSignal, Readable } from 'node:stream';
import tar from 'tar-stream';
import { ImagingError } from '../errors.ts';
import { idsPerRequest } from '../protocol/agent-api.ts';
import type { StoredChunk } from './chunk-store.ts';

export interface UnpackOptions {
  /** largest frame in bytes: frameLimit(chunkSize) */
  maxFrame: number;
  /** entries in one pack; default: what one request may ask for */
  maxChunks?: number;
  signal?: AbortSignal;
}

const ENTRY_NAME = /^([0-9a-f]{64})\.cacnk$/;
const FIXED_TIME = new Date(0);

/**
 * Chunks as a pack: a tar stream of `<sha256>.cacnk` files. Frames are not copied: they must stay as they are
 * until the stream has ended or was destroyed. An error of `chunks` becomes the stream's.
 */
export const packStream = (chunks: Iterable<StoredChunk> | AsyncIterable<StoredChunk>): Readable => {
  const pack = tar.pack();
  feed(pack, chunks).then(
    () => pack.finalize(),
    (error) => pack.destroy(error),
  );
  // a stream of Node's own, since node-fetch and fastify take no streamx stream as a body
  return Readable.from(pack, { objectMode: false, highWaterMark: 1024 * 1024 });
};

/**
 * The chunks of a pack, each as soon as it is whole. Nothing is known about their content yet.
 *
 * @throws ImagingError BAD_REQUEST (not a pack, too many entries, an id twice), CHUNK_CORRUPT (a frame larger
 *   than `maxFrame`); errors of `stream` itself and the signal's reason as they are
 */
export async function* unpack(stream: Readable, options: UnpackOptions): AsyncGenerator<StoredChunk> {
  const { maxFrame, maxChunks = idsPerRequest, signal } = options;
  if (signal) addAbortSignal(signal, stream);
  const extract = tar.extract();
  const source = pump(stream, extract);
  const seen = new Set<string>();
  try {
    for await (const entry of extract) {
      const { name, size, type } = entry.header;
      const id = ENTRY_NAME.exec(name)?.[1];
      if (id === undefined || type !== 'file') throw malformed('an entry is not a chunk file');
      if (seen.has(id)) throw malformed(`chunk ${id} comes twice`);
      if (seen.size >= maxChunks) throw malformed(`more than ${maxChunks} chunks`);
      seen.add(id);
      yield { id, frame: await collect(entry, id, size ?? 0, maxFrame) };
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw source.error ?? (error instanceof ImagingError ? error : malformed(messageOf(error), error));
  } finally {
    extract.destroy();
    stream.destroy();
  }
}

/**
 * Move bytes from a stream of Node's to one of streamx, with backpressure. `error` is what the stream itself
 * failed with, as opposed to what the tar parser says of its bytes.
 */
const pump = (stream: Readable, extract: tar.Extract): { readonly error: Error | undefined } => {
  const state: { error: Error | undefined } = { error: undefined };
  const move = async (): Promise<void> => {
    try {
      for await (const part of stream) {
        if (!extract.write(part)) await drained(extract);
        if (extract.destroyed) return;
      }
      extract.end(undefined);
    } catch (error) {
      if (extract.destroyed) return;
      state.error = error instanceof Error ? error : new Error(String(error));
      extract.destroy(state.error);
    }
  };
  void move();
  return state;
};

const drained = (extract: tar.Extract): Promise<void> =>
  new Promise((resolve) => {
    const done = (): void => {
      extract.off('drain', done);
      extract.off('close', done);
      resolve();
    };
    extract.on('drain', done);
    extract.on('close', done);
  });

const feed = async (
  pack: tar.Pack,
  chunks: Iterable<StoredChunk> | AsyncIterable<StoredChunk>,
): Promise<void> => {
  for await (const { id, frame } of chunks) {
    const body = Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength);
    await new Promise<void>((resolve, reject) => {
      const header = { name: `${id}.cacnk`, mode: 0o644, mtime: FIXED_TIME };
      const entry = pack.entry(header, body, (error) => (error ? reject(error) : resolve()));
      // tar-stream 3.2 destroys an unfinished entry with the pack's error: without a listener that is uncaught
      entry.on('error', reject);
    });
  }
};

const collect = async (
  entry: AsyncIterable<unknown>,
  id: string,
  size: number,
  maxFrame: number,
): Promise<Uint8Array> => {
  if (size > maxFrame) {
    const reason = `its frame has ${size} bytes, at most ${maxFrame} are possible`;
    throw new ImagingError('CHUNK_CORRUPT', `Cannot use chunk ${id}: ${reason}`, { details: { id } });
  }
  const frame = Buffer.allocUnsafeSlow(size);
  let done = 0;
  for await (const part of entry as AsyncIterable<Uint8Array>) {
    frame.set(part, done);
    done += part.length;
  }
  return frame;
};

const malformed = (reason: string, cause?: unknown): ImagingError =>
  new ImagingError('BAD_REQUEST', `Cannot read pack: ${reason}`, cause === undefined ? {} : { cause });

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
