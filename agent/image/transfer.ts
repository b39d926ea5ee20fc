import type { TransferStats } from '../protocol/task.ts';
import { busyBetween } from './busy.ts';
import type { ChunkPool } from './pool.ts';

/** What a transfer counts; the rest of TransferStats follows from time and pool. */
export type TransferCounts = Omit<TransferStats, 'seconds' | 'busy' | 'bottleneck'>;

export interface Transfer {
  counts: TransferCounts;
  /** Wrap everything that waits for the other side. */
  network<T>(work: () => Promise<T>): Promise<T>;
  finish(): TransferStats;
}

/** Counts and busy shares (busyBetween) of one capture, deploy or read-back on this pool. */
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
  const finish = (): TransferStats => {
    const seconds = (now() - started) / 1000;
    return { ...counts, seconds, ...busyBetween(before, pool.usage(), seconds, { ...pool, readers }) };
  };
  return { counts, network: (work) => pool.waiting('network', work), finish };
};
