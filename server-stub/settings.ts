import { leaseSeconds, longPollSeconds, outageSeconds } from '../agent/protocol/index.ts';
import type { QueueLimits } from './queue/task-row.ts';

/** Every number that a site or a test may want otherwise. Times in milliseconds, sizes in bytes. */
export interface Settings {
  queue: QueueLimits;
  /** longest time that `next` is held open */
  longPollMs: number;
  /** a machine without a task waits this long for one before it is sent to its own disk */
  nothingGraceMs: number;
  /** leases are looked at this often */
  sweepMs: number;
  /** live progress is written to the database this often */
  saveMs: number;
  /** a boot token is good for this long: slow firmware, slow TFTP */
  bootTokenMs: number;
  /** free space that the store never uses: the database must always be able to write */
  reserveBytes: number;
  /** requests a minute from one address to what needs no token: 500 machines behind one relay */
  openRequestsPerMinute: number;
  /** lines of log kept for each attempt */
  logLines: number;
}

export const defaultSettings: Settings = {
  queue: {
    slots: 10,
    leaseMs: leaseSeconds * 1000,
    waitLeaseMs: (longPollSeconds + 10) * 1000,
    lostMs: outageSeconds * 1000,
    wipeLostMs: 24 * 3600_000,
    startGraceMs: 60_000,
  },
  longPollMs: longPollSeconds * 1000,
  nothingGraceMs: 3000,
  sweepMs: 1000,
  saveMs: 10_000,
  bootTokenMs: 60 * 60_000,
  reserveBytes: 64 * 1024 * 1024,
  openRequestsPerMinute: 20_000,
  logLines: 100_000,
};
