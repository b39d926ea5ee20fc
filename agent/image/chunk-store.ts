/** A chunk as it is stored and sent: one zstd frame under the SHA-256 of its plain bytes. */
export interface StoredChunk {
  /** SHA-256 of the plain bytes, lower-case hex */
  id: string;
  frame: Uint8Array;
}

/** Where a capture sends chunks: a server, or a local store. */
export interface ChunkSink {
  /** Which of these ids are not stored yet. The answer pins the others until the version is published. */
  missing(ids: readonly string[], signal: AbortSignal): Promise<Set<string>>;
  /** Store these chunks; resolves when they are checked and durable. */
  put(chunks: readonly StoredChunk[], signal: AbortSignal): Promise<void>;
}

/** Where a deploy gets chunks from. */
export interface ChunkSource {
  /**
   * The frames of these ids, in any order, each once. The caller checks size and hash of every one.
   *
   * @throws ImagingError CHUNK_MISSING, CHUNK_CORRUPT (the store found it itself), SERVER_UNREACHABLE
   */
  fetch(ids: readonly string[], signal: AbortSignal): AsyncIterable<StoredChunk>;
  /** Where the frame lies as a file of this machine: worker threads then read it themselves. */
  path?(id: string): string;
}
