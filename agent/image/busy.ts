import type { Busy } from '../protocol/task.ts';
import type { ChunkPool, PoolUsage } from './pool.ts';

export interface BusyReading {
  busy: Busy;
  /** the stage with the largest share */
  bottleneck: string;
}

/** as the meter's: long enough to be calm, short enough to show what holds things up now */
const WINDOW_SECONDS = 5;

/**
 * Shares of the time between two looks at a pool. `read`, `hash`, `codec` and `write` are of the workers' time;
 * workers that had nothing to do count for `network` or `write`, whichever was waited for. They add up to at most 1.
 * `readers`: how many workers may read at once (1 on a rotational disk, where one busy reader is a busy disk).
 */
export const busyBetween = (
  before: PoolUsage,
  after: PoolUsage,
  seconds: number,
  { workers, readers = workers }: { workers: number; readers?: number },
): BusyReading => {
  const share = (stage: number, lanes: number): number =>
    seconds <= 0 ? 0 : Math.min(1, stage / (seconds * lanes));
  const spent = (stage: 'read' | 'hash' | 'codec' | 'write'): number => after[stage] - before[stage];
  const busy: Busy = {
    read: share(spent('read'), readers),
    hash: share(spent('hash'), workers),
    codec: share(spent('codec'), workers),
    network: share(after.starved.network - before.starved.network, workers),
    write: share(spent('write') + after.starved.write - before.starved.write, workers),
  };
  return { busy, bottleneck: highest(busy) };
};

/** Busy shares over the last seconds of a pool's work; null while nothing was done. `now` in milliseconds. */
export const createBusyMeter = (
  pool: Pick<ChunkPool, 'workers' | 'usage'>,
  readers: number = pool.workers,
  now: () => number = () => performance.now(),
): (() => BusyReading | null) => {
  const looks = [{ at: now(), usage: pool.usage() }];
  return () => {
    const look = { at: now(), usage: pool.usage() };
    looks.push(look);
    // the oldest look that is kept is the last one before the window
    while (looks.length > 2 && look.at - (looks[1]?.at ?? look.at) >= WINDOW_SECONDS * 1000) looks.shift();
    const [first = look] = looks;
    const reading = busyBetween(first.usage, look.usage, (look.at - first.at) / 1000, {
      workers: pool.workers,
      readers,
    });
    return Object.values(reading.busy).some((share) => share > 0) ? reading : null;
  };
};

const highest = (busy: Busy): string =>
  Object.entries(busy).reduce((most, stage) => (stage[1] > most[1] ? stage : most))[0];
