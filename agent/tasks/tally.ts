import type { Traffic } from '../client/server-chunks.ts';
import type { Busy, TransferStats } from '../protocol/index.ts';

export interface Tally {
  add(stats: TransferStats): void;
  /** the sum; network bytes are what really crossed the wire */
  total(): TransferStats;
}

/** Adds up the transfer statistics of a disk's partitions. */
export const createTally = (traffic: Traffic): Tally => {
  const parts: TransferStats[] = [];
  return {
    add: (stats) => parts.push(stats),
    total: () => {
      const sum = (of: (stats: TransferStats) => number): number =>
        parts.reduce((all, part) => all + of(part), 0);
      const seconds = sum((part) => part.seconds);
      const share = (name: keyof Busy): number =>
        seconds === 0 ? 0 : sum((part) => part.busy[name] * part.seconds) / seconds;
      const busy: Busy = {
        read: share('read'),
        hash: share('hash'),
        codec: share('codec'),
        network: share('network'),
        write: share('write'),
      };
      const [bottleneck] = Object.entries(busy).reduce((most, entry) => (entry[1] > most[1] ? entry : most));
      return {
        seconds,
        bytesRead: sum((part) => part.bytesRead),
        bytesWritten: sum((part) => part.bytesWritten),
        bytesSent: traffic.sent,
        bytesReceived: traffic.received,
        bytesUsed: sum((part) => part.bytesUsed),
        chunks: sum((part) => part.chunks),
        chunksReused: sum((part) => part.chunksReused),
        bytesReadBack: sum((part) => part.bytesReadBack),
        busy,
        bottleneck,
      };
    },
  };
};
