import { open, readFile, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ImagingError } from '../errors.ts';
import { ownFolder } from '../process/owner.ts';
import { run } from '../process/run.ts';
import { mapDevice, mappingStatus } from './device-mapper.ts';
import { detachLoop, setUpLoop } from './loop-nodes.ts';

/** A writable view of a device: what is written goes to memory, the device itself is only read. */
export interface Snapshot extends AsyncDisposable {
  readonly path: string;
  /** @throws ImagingError TOOL_FAILED: more was written than there is room for, so nothing in it can be believed */
  assertWhole(): Promise<void>;
}

export interface SnapshotOptions {
  /** most that may be written, bytes */
  limit: number;
  signal?: AbortSignal;
}

const SECTOR = 512;
/** unit of copy-on-write: 8 sectors, the block of most filesystems */
const CHUNK_SECTORS = 8;
/** below this even an empty journal's replay finds no room */
const LEAST = 4 * 1024 * 1024;

/**
 * A device-mapper snapshot with its changes in a tmpfs of its own (dm-snapshot, not persistent): memory is
 * taken as it is written to, up to `limit`. Disposing takes everything down again.
 *
 * @throws ImagingError TOOL_FAILED: no device-mapper, no memory
 */
export const snapshotInMemory = async (
  origin: string,
  { limit, signal }: SnapshotOptions,
): Promise<Snapshot> => {
  // nothing below takes long, and what a cancelled tool had made would stay
  signal?.throwIfAborted();
  if (limit < LEAST) {
    throw new ImagingError('TOOL_FAILED', `Cannot make a snapshot of ${origin}: too little memory is free`);
  }
  await using making = new AsyncDisposableStack();
  const folder = await ownFolder('snapshot');
  making.defer(async () => await rmdir(folder));
  await run('mount', ['-t', 'tmpfs', '-o', `size=${limit + LEAST},mode=0700`, 'tmpfs', folder]);
  making.defer(async () => void (await run('umount', [folder])));
  const file = join(folder, 'changes');
  await using handle = await open(file, 'w');
  await handle.truncate(limit);
  const store = await setUpLoop(file, { writable: true });
  making.defer(async () => await detachLoop(store));
  const { stdout } = await run('blockdev', ['--getsize64', origin]);
  const sectors = Number(stdout.trim()) / SECTOR;
  const table = `0 ${sectors} snapshot ${origin} ${store} N ${CHUNK_SECTORS}`;
  const mapped = making.use(await mapDevice([table], { readOnly: false }));
  const made = making.move();
  return {
    path: mapped.path,
    assertWhole: async () => {
      // what a tool wrote may still be on its way
      await run('blockdev', ['--flushbufs', mapped.path], { okExitCodes: [0, 1] });
      const status = await mappingStatus(mapped.name);
      // "16/4096 16": sectors taken, of, for metadata; else Invalid, Overflow, Merge failed, Unknown
      if (/^snapshot \d+\/\d+ \d+$/.test(status)) return;
      throw new ImagingError('TOOL_FAILED', `Cannot use the snapshot of ${origin}: ${status}`, {
        details: { origin, status, limit },
      });
    },
    [Symbol.asyncDispose]: async () => await made.disposeAsync(),
  };
};

/** Memory that could be used without swapping, bytes (`MemAvailable`, Linux 3.14). */
export const availableMemory = async (): Promise<number> => {
  const kib = /^MemAvailable:\s+(\d+) kB$/m.exec(await readFile('/proc/meminfo', 'utf8'))?.[1];
  return Number(kib ?? 0) * 1024;
};
