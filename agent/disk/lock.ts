import { ImagingError, isImagingError } from '../errors.ts';
import { run } from '../process/run.ts';

const CONFLICT = 75;

/**
 * Take the BSD lock on a whole disk until `unlock`. systemd-udevd leaves a locked disk alone: it
 * neither probes it while it is written to, nor re-reads its partition table when a writer closes it, nor
 * runs rules for it (which would set new partitions read-only), see
 * https://systemd.io/BLOCK_DEVICE_LOCKING. Events wait until unlock: do not `udevadm settle` meanwhile.
 *
 * Node has no flock(2), so util-linux's holds it; it dies with this process (setpriv --pdeathsig).
 *
 * @throws ImagingError DISK_IN_USE
 */
export const lockDisk = async (path: string): Promise<{ unlock: () => Promise<void> }> => {
  const end = new AbortController();
  const { promise: held, resolve } = Promise.withResolvers<void>();
  const holder = run('setpriv', ['--pdeathsig', 'KILL', 'flock', ...flockArgs(path)], {
    signal: end.signal,
    timeoutMs: 0,
    onLine: (line) => {
      if (line === 'held') resolve();
    },
  });
  // the end of the holder is looked at in one place below, whichever way it comes
  const ended = holder.then(
    () => undefined,
    (error: unknown) => error,
  );
  const first = await Promise.race([held.then(() => 'held' as const), ended]);
  if (first !== 'held') throw inUse(path, first);
  return {
    unlock: async () => {
      end.abort();
      await ended;
    },
  };
};

const flockArgs = (path: string): string[] => [
  ...['--exclusive', '--nonblock', '--conflict-exit-code', String(CONFLICT), '--no-fork', path],
  ...['sh', '-c', 'echo held; exec sleep infinity'],
];

const inUse = (path: string, error: unknown): unknown => {
  if (isImagingError(error) && error.details['exitCode'] === CONFLICT) {
    return new ImagingError('DISK_IN_USE', `Cannot claim ${path}: another program has locked it`, {
      details: { path },
      cause: error,
    });
  }
  return error ?? new ImagingError('INTERNAL', `Cannot claim ${path}: the lock's holder ended by itself`);
};
