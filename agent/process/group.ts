import type { Readable } from 'node:stream';
import { isErrno } from '../errors.ts';

/** The parts of execa's subprocess that count here. */
interface GroupLeader {
  pid?: number | undefined;
  stdout: Readable | null;
  stderr: Readable | null;
}

/** Watches a process group while its tool runs. Disposing it ends the watch, not the group. */
export interface WatchedGroup extends Disposable {
  /** why it was ended from here; null: it was not */
  readonly ended: 'timeout' | 'cancelled' | null;
}

/** from SIGTERM to SIGKILL, and from there to letting go of output that a runaway holds open */
const PATIENCE_MS = 2000;
const leaders = new Set<number>();

/**
 * End the group of `leader`, which was started detached, after `timeoutMs` (0: no limit), when the signal is aborted, and when
 * this process exits: SIGTERM, `patienceMs` (two seconds) later SIGKILL.
 */
export const watchGroup = (
  leader: GroupLeader,
  timeoutMs: number,
  signal: AbortSignal | undefined,
  patienceMs = PATIENCE_MS,
): WatchedGroup => {
  const { pid } = leader;
  let ended: WatchedGroup['ended'] = null;
  let escalation: NodeJS.Timeout | undefined;

  const end = (why: NonNullable<typeof ended>): void => {
    if (pid === undefined || ended) return;
    ended = why;
    kill(pid, 'SIGTERM');
    escalation = setTimeout(() => {
      kill(pid, 'SIGKILL');
      // what left the group may hold the pipes for ever
      escalation = setTimeout(() => {
        leader.stdout?.destroy();
        leader.stderr?.destroy();
      }, PATIENCE_MS);
    }, patienceMs);
  };
  const onAbort = (): void => end('cancelled');
  const limit = timeoutMs > 0 ? setTimeout(() => end('timeout'), timeoutMs) : undefined;
  signal?.addEventListener('abort', onAbort, { once: true });
  followToTheEnd();
  if (pid !== undefined) leaders.add(pid);

  return {
    get ended() {
      return ended;
    },
    [Symbol.dispose]: () => {
      clearTimeout(limit);
      clearTimeout(escalation);
      signal?.removeEventListener('abort', onAbort);
      if (pid === undefined) return;
      // the leader is gone; what it left behind may not go on writing
      if (ended) kill(pid, 'SIGKILL');
      leaders.delete(pid);
    },
  };
};

let follows = false;

/** A terminal's Ctrl-C reaches this process's own group only: the tools' groups end with it all the same. */
const followToTheEnd = (): void => {
  if (follows) return;
  follows = true;
  process.once('exit', killAll);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    const onSignal = (): void => {
      // whoever else listens decides when the process ends
      if (process.listenerCount(signal) > 1) return;
      killAll();
      process.removeListener(signal, onSignal);
      process.kill(process.pid, signal);
    };
    process.on(signal, onSignal);
  }
};

const killAll = (): void => {
  for (const pid of leaders) kill(pid, 'SIGKILL');
};

const kill = (leader: number, signal: NodeJS.Signals): void => {
  try {
    process.kill(-leader, signal);
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error;
  }
};
