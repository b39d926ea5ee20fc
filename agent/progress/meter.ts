/** Bytes, rate, time left and stall of one step. Time comes from outside so that tests own it. */
export interface MeterReading {
  done: number;
  total: number | null;
  /** bytes a second over the window */
  rate: number;
  etaSeconds: number | null;
  stalledSeconds: number;
}

export interface Meter {
  /** bytes done since the last call */
  add(bytes: number): void;
  read(): MeterReading;
}

const WINDOW_SECONDS = 5;

/**
 * A meter over a sliding window of 5 s: long enough to be calm, short enough to show a stall.
 * `total` in bytes; null while unknown. `now` in milliseconds, monotonic.
 */
export const createMeter = (total: number | null, now: () => number = () => performance.now()): Meter => {
  let done = 0;
  let movedAt = now();
  const samples: { at: number; done: number }[] = [{ at: movedAt, done: 0 }];

  const add = (bytes: number): void => {
    if (bytes <= 0) return;
    done += bytes;
    movedAt = now();
    const last = samples.at(-1);
    // one sample per 100 ms bounds the list at 50
    if (last && movedAt - last.at < 100 && samples.length > 1) last.done = done;
    else samples.push({ at: movedAt, done });
  };

  const read = (): MeterReading => {
    const at = now();
    while (samples.length > 1 && at - (samples[1]?.at ?? at) >= WINDOW_SECONDS * 1000) samples.shift();
    const first = samples[0] ?? { at, done };
    const seconds = (at - first.at) / 1000;
    const rate = seconds > 0 ? (done - first.done) / seconds : 0;
    const left = total === null ? null : Math.max(0, total - done);
    return {
      done,
      total,
      rate,
      etaSeconds: left === null || (rate === 0 && left > 0) ? null : left === 0 ? 0 : left / rate,
      stalledSeconds: Math.max(0, (at - movedAt) / 1000),
    };
  };

  return { add, read };
};
