import { ImagingError } from '../errors.ts';

/** Page size: what O_DIRECT asks of memory addresses, and the step of every allocation. */
export const PAGE = 4096;

/** A piece of the shared memory, page-aligned. Whoever holds it is the only one who uses it. */
export interface Region {
  /** bytes from the start of the shared memory: how workers are told of it */
  readonly at: number;
  readonly bytes: Uint8Array;
  /** Give it back. Only after the last worker job on it has ended; a second call does nothing. */
  release(): void;
}

export interface Arena {
  readonly size: number;
  readonly buffer: SharedArrayBuffer;
  /** Waits, first come first served, until so many bytes are free. */
  allocate(bytes: number, signal?: AbortSignal): Promise<Region>;
  /** The same without waiting: undefined if it would have to. */
  tryAllocate(bytes: number): Region | undefined;
}

interface Waiter {
  bytes: number;
  grant: (region: Region) => void;
}

/**
 * First-fit allocation in one shared memory. WebAssembly.Memory because its buffer is page-aligned, which no
 * other buffer of Node is, and O_DIRECT needs it; its pages take no RAM until they are touched.
 */
export const createArena = (size: number): Arena => {
  const buffer = sharedMemory(size);
  let free: { at: number; size: number }[] = [{ at: 0, size: buffer.byteLength }];
  const waiting: Waiter[] = [];

  const take = (bytes: number): Region | undefined => {
    const range = free.find((candidate) => candidate.size >= bytes);
    if (!range) return undefined;
    const at = range.at;
    range.at += bytes;
    range.size -= bytes;
    if (range.size === 0) free = free.filter((candidate) => candidate !== range);
    let held = true;
    const release = (): void => {
      if (!held) return;
      held = false;
      give(at, bytes);
    };
    return { at, bytes: new Uint8Array(buffer, at, bytes), release };
  };

  const give = (at: number, bytes: number): void => {
    free.push({ at, size: bytes });
    free.sort((a, b) => a.at - b.at);
    const merged: typeof free = [];
    for (const range of free) {
      const last = merged.at(-1);
      if (last && last.at + last.size === range.at) last.size += range.size;
      else merged.push(range);
    }
    free = merged;
    while (waiting[0]) {
      const region = take(waiting[0].bytes);
      if (!region) return;
      waiting.shift()?.grant(region);
    }
  };

  const tryAllocate = (bytes: number): Region | undefined =>
    waiting.length === 0 ? take(roundUp(bytes)) : undefined;

  const allocate = async (bytes: number, signal?: AbortSignal): Promise<Region> => {
    const rounded = roundUp(bytes);
    if (rounded > buffer.byteLength) {
      throw new ImagingError('INTERNAL', `Cannot hold ${bytes} bytes: the pool has ${buffer.byteLength}`);
    }
    signal?.throwIfAborted();
    const region = tryAllocate(bytes);
    if (region) return region;
    return await new Promise<Region>((resolve, reject) => {
      const waiter: Waiter = {
        bytes: rounded,
        grant: (granted) => {
          signal?.removeEventListener('abort', onAbort);
          resolve(granted);
        },
      };
      const onAbort = (): void => {
        waiting.splice(waiting.indexOf(waiter), 1);
        reject(signal?.reason);
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      waiting.push(waiter);
    });
  };

  return { size: buffer.byteLength, buffer, allocate, tryAllocate };
};

const roundUp = (bytes: number): number => Math.max(PAGE, Math.ceil(bytes / PAGE) * PAGE);

// in Node, but declared only by the browser's type library
declare const WebAssembly: {
  Memory: new (size: { initial: number; maximum: number; shared: true }) => { buffer: SharedArrayBuffer };
};

/** Page-aligned memory that several threads may use. */
export const sharedMemory = (size: number): SharedArrayBuffer => {
  const pages = Math.ceil(size / 65536);
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }).buffer;
};
