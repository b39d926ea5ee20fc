import type { Extent } from './extent.ts';

/** Where a frame is: in the shared memory, or in a chunk file that the worker reads itself. */
export type FrameAt = { at: number; length: number } | { path: string };

/** A chunk's place on a device. Workers share the process's file descriptors. */
export interface ChunkPlace {
  fd: number;
  /** bytes from the start of the device */
  position: number;
  /** plain bytes of this chunk */
  length: number;
  /** reads and writes keep to multiples of this many bytes (O_DIRECT); 1 for buffered descriptors */
  align: number;
}

/** What a worker can do. Every kind ends before it answers: nothing goes on behind the answer. */
export interface Jobs {
  /** Read a chunk, zero what `used` (from the chunk's first byte) does not cover, hash it. `at` null: do not keep it. */
  hash: {
    job: ChunkPlace & {
      used: Extent[];
      at: number | null;
      /** where a read fails, find out so long what exactly cannot be read */
      lookSeconds: number;
    };
    result: { id: string; bytesRead: number };
  };
  /** The same for a chunk with bad sectors: zeros stand for what cannot be read in that time; `damaged` says where. */
  rescue: {
    job: ChunkPlace & { used: Extent[]; at: number; seconds: number };
    result: { id: string; bytesRead: number; damaged: Extent[] };
  };
  /** Replace the plain bytes at `at` by their frame. The region must hold frameLimit(length) bytes. */
  compress: { job: { at: number; length: number; level: number }; result: { length: number } };
  /** Check a frame, then write its plain bytes at each of `positions`. */
  write: {
    job: { frame: FrameAt; id: string; length: number; fd: number; align: number; positions: number[] };
    result: { frameLength: number };
  };
  /** Check a frame where `limit` is given (largest plain size), then write it to the new file `path`. */
  store: {
    job: { at: number; length: number; id: string; limit: number | null; path: string };
    result: Record<string, never>;
  };
  /** Make written files durable, then give them their names, then make the names durable. */
  publish: { job: { files: { from: string; to: string }[]; root: string }; result: Record<string, never> };
  /** Check a chunk: file or frame in memory. */
  check: {
    job: { frame: FrameAt; id: string; limit: number };
    result: { length: number; frameLength: number };
  };
  /** Write a wipe's pattern (agent/wipe/pattern.ts); bad sectors are tried for so long. `missed` is what could not be written. */
  overwrite: { job: WipedPlace; result: { missed: Extent[] } };
  /** Read a place back and compare it with the pattern. */
  compare: { job: WipedPlace; result: { different: Extent[]; unreadable: Extent[] } };
  /** Read a place and keep nothing of it: how long that took, and what could not be read. */
  probe: { job: ChunkPlace & { seconds: number }; result: { ms: number; unreadable: Extent[] } };
}

/** A part of a disk that is wiped. Extents in answers count from the start of the disk. */
export interface WipedPlace extends ChunkPlace {
  key: string | null;
  /** limit for the sectors of this place that fail */
  seconds: number;
}

export type JobKind = keyof Jobs;

/** Seconds that a stage worked. Waiting is not counted. */
export interface StageSeconds {
  read: number;
  hash: number;
  codec: number;
  write: number;
}

export interface JobRequest {
  number: number;
  kind: JobKind;
  job: Jobs[JobKind]['job'];
}

export type JobAnswer = { number: number; seconds: StageSeconds } & (
  | { ok: true; result: Jobs[JobKind]['result'] }
  | { ok: false; error: { code: string; message: string; details: Record<string, unknown>; errno?: string } }
);
