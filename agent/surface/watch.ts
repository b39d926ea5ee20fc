import { setTimeout as sleep } from 'node:timers/promises';
import type { Disk } from '../disk/disk.ts';
import { kernelNameOf, readAttribute, sysfsOf } from '../disk/sysfs.ts';
import { ImagingError } from '../errors.ts';

export interface WatchOptions {
  signal: AbortSignal;
  /** without a completed read or write for so long the disk hangs; default 5 min: SCSI tries a command six times, 30 s each */
  stallMs?: number;
  pollMs?: number;
  /** how long work may take to end when it is told to; what hangs in the kernel ends later or never, default 5 s */
  graceMs?: number;
  /** for tests */
  sysfsRoot?: string;
}

export interface Watched {
  /** aborted on cancel and when the disk vanishes or hangs */
  signal: AbortSignal;
  /** work has come further */
  alive(): void;
}

/**
 * Do work on a disk that may vanish or hang meanwhile. Neither a read that hangs in the kernel nor a thread that waits for it can
 * be ended, so they are left behind: this ends within `graceMs` of the cancel or of the trouble.
 *
 * @throws ImagingError DISK_LOST (unplugged, or the kernel gave up on it), DISK_STALLED, TASK_CANCELLED; what `work` throws
 */
export const watchDisk = async <T>(
  disk: Pick<Disk, 'path'>,
  options: WatchOptions,
  work: (watched: Watched) => Promise<T>,
): Promise<T> => {
  const { stallMs = 5 * 60_000, pollMs = 2000, graceMs = 5000, sysfsRoot } = options;
  const folder = sysfsOf(kernelNameOf(disk.path), sysfsRoot);
  const trouble = new AbortController();
  const over = new AbortController();
  const signal = AbortSignal.any([options.signal, trouble.signal]);
  let movedAt = performance.now();
  const alive = (): void => {
    movedAt = performance.now();
  };

  const before = await look(folder);
  const watch = async (): Promise<void> => {
    let completed = before.completed;
    while (!over.signal.aborted) {
      const now = await look(folder);
      const lost = whyLost(before, now);
      if (lost) return trouble.abort(lostError(disk.path, lost));
      if (now.completed !== completed) alive();
      completed = now.completed;
      if (performance.now() - movedAt > stallMs) return trouble.abort(stalledError(disk.path, stallMs));
      await sleep(pollMs, undefined, { signal: over.signal }).catch(() => undefined);
    }
  };
  let grace: NodeJS.Timeout | undefined;
  const told = new Promise<never>((_, reject) => {
    const onAbort = (): void => {
      // a cancel of others, when this work has long ended
      if (over.signal.aborted) return;
      const giveUp = (): void => reject(reasonOf(signal, disk.path));
      grace = setTimeout(giveUp, graceMs);
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
  told.catch(() => undefined);
  const watching = watch();
  try {
    return await Promise.race([work({ signal, alive }), told]);
  } catch (error) {
    throw signal.aborted ? reasonOf(signal, disk.path) : error;
  } finally {
    clearTimeout(grace);
    over.abort();
    await watching;
  }
};

const reasonOf = (signal: AbortSignal, path: string): unknown =>
  signal.reason instanceof ImagingError
    ? signal.reason
    : new ImagingError('TASK_CANCELLED', `Cannot go on with ${path}: cancelled`, { cause: signal.reason });

/** What the kernel says of a block device; null where it says nothing (in tests: a file). */
interface Look {
  sequence: string | null;
  size: string | null;
  /** of SCSI and NVMe devices */
  state: string | null;
  /** reads and writes that came back, well or not */
  completed: number | null;
}

const look = async (folder: string): Promise<Look> => {
  const counts = (await readAttribute(folder, 'stat'))?.split(/\s+/);
  return {
    sequence: await readAttribute(folder, 'diskseq'),
    size: await readAttribute(folder, 'size'),
    state: await readAttribute(folder, 'device/state'),
    // fields 1 and 5 of Documentation/block/stat.rst
    completed: counts ? Number(counts[0]) + Number(counts[4]) : null,
  };
};

/** scsi_device's and nvme_ctrl's states in which no command reaches the device any more (Linux 6.12) */
const GONE_STATES = new Set(['offline', 'transport-offline', 'cancel', 'deleted', 'deleting', 'dead']);

const whyLost = (before: Look, now: Look): string | null => {
  if (before.size === null) return null;
  if (now.size === null) return 'it is gone from the system (drive, cable or power)';
  if (now.sequence !== before.sequence) return 'it was unplugged, and came back or another one did';
  if (now.size !== before.size) return `its size was ${before.size} sectors, is ${now.size}`;
  if (now.state !== null && GONE_STATES.has(now.state) && now.state !== before.state)
    return `the kernel gave up on it (${now.state})`;
  return null;
};

const lostError = (path: string, why: string): ImagingError =>
  new ImagingError('DISK_LOST', `Cannot go on with ${path}: ${why}`, { details: { path } });

const stalledError = (path: string, stallMs: number): ImagingError =>
  new ImagingError(
    'DISK_STALLED',
    `Cannot go on with ${path}: no read or write came back for ${Math.round(stallMs / 1000)} s`,
    { details: { path, seconds: stallMs / 1000 } },
  );
