import type { Busy, TransferStats } from '../protocol/task.ts';
import type { ChunkPool } from './pool.ts';

/** What a transfer counts; the rest of TransferStats follows from time and pool. */
export type TransferCounts = Omit<TransferStats, 'seconds' | 'busy' | 'bottleneck'>;

export interface Transfer {
  counts: TransferCounts;
  /** Wrap everything that waits for the other side. */
  network<T>(work: () => Promise<T>): Promise<T>;
  finish(): TransferStats;
}

/**
 * Counts and busy shares of one capture, deploy or read-back on this pool. The share of `read`, `hash`, `codec`
 * and `write` is of the workers' time; `network` is the share in which workers had nothing to do while a
 * request was under way. They add up to at most 1, and the largest is the bottleneck. `readers`: how many
 * workers may read at once (1 on a rotational disk, where one busy reader is a busy disk).
 */
export const startTransfer = (
  pool: ChunkPool,
  readers: number = pool.workers,
  now: () => number = () => performance.now(),
): Transfer => {
  const started = now();
  const before = pool.usage();
  const counts: TransferCounts = {
    bytesRead: 0,
    bytesWritten: 0,
    bytesSent: 0,
    bytesReceived: 0,
    bytesUsed: 0,
    chunks: 0,
    chunksReused: 0,
    bytesReadBack: 0,
  };
  let underWay = 0;
  let idleAtStart = 0;
  let starved = 0;

  const network: Transfer['network'] = async (work) => {
    if (underWay === 0) idleAtStart = pool.usage().idle;
    underWay += 1;
    try {
      return await work();
    } finally {
      underWay -= 1;
      if (underWay === 0) starved += pool.usage().idle - idleAtStart;
    }
  };

  const finish = (): TransferStats => {
    const after = pool.usage();
    const seconds = (now() - started) / 1000;
    const share = (stage: number, lanes: number): number =>
      seconds === 0 ? 0 : Math.min(1, stage / (seconds * lanes));
    const busy: Busy = {
      read: share(after.read - before.read, readers),
      hash: share(after.hash - before.hash, pool.workers),
      codec: share(after.codec - before.codec, pool.workers),
      network: share(starved, pool.workers),
      write: share(after.write - before.write, pool.workers),
    };
    return { ...counts, seconds, busy, bottleneck: highest(busy) };
  };

  return { counts, network, finish };
};

const highest = (busy: Busy): string =>
  Object.entries(busy).reduce((most, stage) => (stage[1] > most[1] ? stage : most))[0];
