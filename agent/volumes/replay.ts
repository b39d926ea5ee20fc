import { mountWritable } from '../disk/mount-writable.ts';
import { ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';

const TIMEOUT_MS = 60 * 60_000;

/** The kernel's own replay: a mount for writing, and out again. */
const mountOnce =
  (type: string) =>
  async (device: string, signal: AbortSignal): Promise<void> => {
    await using _mount = await mountWritable(device, type, { signal, timeoutMs: TIMEOUT_MS });
  };

/** e2fsck replays, then does what a start after a power cut would: 1 is "corrected". */
const preen = async (device: string, signal: AbortSignal): Promise<void> => {
  const options = { signal, timeoutMs: TIMEOUT_MS, okExitCodes: [0, 1] };
  await run('e2fsck', ['-f', '-p', device], options);
};

const replays: Readonly<Record<string, (device: string, signal: AbortSignal) => Promise<void>>> = {
  ext3: preen,
  ext4: preen,
  xfs: mountOnce('xfs'),
  btrfs: mountOnce('btrfs'),
  f2fs: mountOnce('f2fs'),
};

/** Whether a filesystem (libblkid's name) that was not unmounted can be brought to order by its own journal. */
export const isReplayable = (type: string): boolean => type in replays;

/**
 * Replay the journal of a filesystem, as the next start of its system would. Writes: for snapshots only.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const replayJournal = async (device: string, type: string, signal: AbortSignal): Promise<void> => {
  const replay = replays[type];
  if (!replay) throw new ImagingError('INTERNAL', `Cannot replay a journal of ${type}`);
  await replay(device, signal);
  await run('blockdev', ['--flushbufs', device], { timeoutMs: TIMEOUT_MS });
};
