import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode, ImagingError, toImagingError } from '../errors.ts';
import type { Log } from '../log.ts';
import { type Durable, heartbeatSeconds, type Progress } from '../protocol/index.ts';
import type { TaskServer } from './task-server.ts';

export interface Reporter {
  /** Post progress now, with what is durable; resolves when the server has it or is away. */
  now(): Promise<void>;
  /** From the next post on. */
  setDurable(durable: Durable): void;
  stop(): Promise<void>;
}

export interface ReporterOptions {
  server: Pick<TaskServer, 'heartbeat' | 'progress'>;
  taskId: string;
  attempt: number;
  /** what to say at this moment */
  reading: () => Omit<Progress, 'attempt' | 'durable'>;
  /** aborted when the server says cancel, or has given the task to another attempt */
  abort: (reason: ImagingError) => void;
  log: Log;
  /** after each post, for the upload of the log */
  afterPost?: () => void;
  progressMs?: number;
  random?: () => number;
}

/** promise of the wire: at least every 2 s in every step */
const PROGRESS_MS = 1000;

/**
 * Two loops beside the task: progress every second, a heartbeat every 15-25 s. Both read the answer's
 * `cancel`. Neither gives up while the server is away: the lease is the server's to end.
 */
export const startReporter = (options: ReporterOptions): Reporter => {
  const { server, taskId, attempt, abort, log, random = Math.random, progressMs = PROGRESS_MS } = options;
  const stopping = new AbortController();
  let durable: Durable | undefined;
  let posting: Promise<void> | undefined;
  let away = false;

  const guarded = async (call: () => Promise<{ cancel: boolean }>): Promise<void> => {
    try {
      const { cancel } = await call();
      if (away) log.info('the server answers again');
      away = false;
      if (cancel) abort(new ImagingError('TASK_CANCELLED', 'Cannot go on: cancelled on the server'));
    } catch (thrown) {
      if (stopping.signal.aborted) return;
      const error = toImagingError(thrown);
      if (hasCode(error, 'LEASE_LOST') || hasCode(error, 'UNAUTHORIZED') || hasCode(error, 'NOT_FOUND'))
        abort(error);
      else if (!away) log.warn({ err: error }, 'the server does not answer; the work goes on');
      away = true;
    }
  };

  const post = (): Promise<void> => {
    const report: Progress = { attempt, ...options.reading(), ...(durable ? { durable } : {}) };
    return guarded(() => server.progress(taskId, report, stopping.signal)).then(() => options.afterPost?.());
  };

  const now = async (): Promise<void> => {
    // a post that is on its way may hold older facts: wait for it, then say the new ones
    await posting;
    posting = post().finally(() => {
      posting = undefined;
    });
    await posting;
  };

  const loop = async (every: () => number, turn: () => Promise<void>): Promise<void> => {
    while (!stopping.signal.aborted) {
      await turn();
      await sleep(every(), undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  };
  const spread = heartbeatSeconds.most - heartbeatSeconds.least;
  const loops = [
    loop(
      () => progressMs,
      () => posting ?? now(),
    ),
    loop(
      () => (heartbeatSeconds.least + random() * spread) * 1000,
      () => guarded(() => server.heartbeat(taskId, attempt, stopping.signal)),
    ),
  ];

  return {
    now,
    setDurable: (value) => {
      durable = value;
    },
    stop: async () => {
      stopping.abort();
      await Promise.all(loops);
    },
  };
};
