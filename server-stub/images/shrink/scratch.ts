import { mkdir, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { hasCode, ImagingError, isErrno, isImagingError } from '../../../agent/errors.ts';
import type { State } from '../../state.ts';

/** the free space is looked at this often while tools write */
const WATCH_MS = 500;

/** Where partitions are put together and made smaller; anything here may be deleted while nothing is being made. */
export const scratchFolder = (state: Pick<State, 'paths'>): string => join(state.paths.root, 'scratch');

/**
 * Run `work` with an empty folder that is gone afterwards, whatever happens. `neededBytes` is what it will take at
 * most; the server's reserve is never touched: the work is stopped before.
 *
 * @throws ImagingError SCRATCH_FULL (`neededBytes` and `availableBytes` in details), and whatever `work` throws
 */
export const withScratch = async <T>(
  state: State,
  neededBytes: number,
  signal: AbortSignal,
  work: (folder: string, signal: AbortSignal) => Promise<T>,
): Promise<T> => {
  const folder = scratchFolder(state);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const availableBytes = Math.max(0, (await freeBytes(folder)) - state.settings.reserveBytes);
  const full = (cause?: unknown): ImagingError =>
    new ImagingError(
      'SCRATCH_FULL',
      `Cannot make a smaller version: ${neededBytes} bytes of free space are needed in ${folder}, ${availableBytes} are available (${state.settings.reserveBytes} are kept back)`,
      { details: { neededBytes, availableBytes, reserveBytes: state.settings.reserveBytes, folder }, cause },
    );
  if (availableBytes < neededBytes) {
    await rm(folder, { recursive: true, force: true });
    throw full();
  }
  const space = new AbortController();
  const watch = setInterval(() => {
    // half the reserve: chunks that arrive stop at the whole of it, and would stop this work for nothing
    void freeBytes(folder).then(
      (free) => free < state.settings.reserveBytes / 2 && space.abort(full()),
      () => undefined,
    );
  }, WATCH_MS);
  try {
    return await work(folder, AbortSignal.any([signal, space.signal]));
  } catch (error) {
    if (signal.aborted) throw error;
    const outOfSpace = space.signal.aborted || isOutOfSpace(error) || (await freeBytes(folder)) === 0;
    throw outOfSpace ? full(error) : error;
  } finally {
    clearInterval(watch);
    await rm(folder, { recursive: true, force: true });
  }
};

/** The store's own refusal, or a tool's or a worker's. */
const isOutOfSpace = (error: unknown): boolean =>
  hasCode(error, 'STORE_FULL') ||
  isErrno(error, 'ENOSPC') ||
  (isImagingError(error) &&
    /No space left on device|ENOSPC/.test(error.message + JSON.stringify(error.details)));

const freeBytes = async (folder: string): Promise<number> => {
  const { bavail, bsize } = await statfs(folder);
  return bavail * bsize;
};
