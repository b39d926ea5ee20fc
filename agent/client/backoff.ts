import { setTimeout as sleep } from 'node:timers/promises';
import { toImagingError } from '../errors.ts';
import { outageSeconds } from '../protocol/index.ts';

export interface WaitOutOptions {
  /** how long an outage may last before its error is final, seconds; default 30 minutes */
  patienceSeconds?: number;
  /** told at each failure, so that screens and logs can say what is waited for */
  onWait?: (error: Error, waitSeconds: number) => void;
  signal: AbortSignal;
  random?: () => number;
  now?: () => number;
}

const FIRST_WAIT_SECONDS = 0.5;
const LONGEST_WAIT_SECONDS = 15;

/**
 * Do something again until it works, as long as its error says that this can help. Waits double from
 * half a second to 15 s, each between half and all of that, so that 500 machines do not return at once.
 *
 * @throws the last error, once it is not retryable or the outage outlasts the patience
 */
export const waitOut = async <T>(attempt: () => Promise<T>, options: WaitOutOptions): Promise<T> => {
  const { patienceSeconds = outageSeconds, random = Math.random, now = () => performance.now() } = options;
  const startedAt = now();
  let longest = FIRST_WAIT_SECONDS;
  for (;;) {
    try {
      return await attempt();
    } catch (thrown) {
      const error = toImagingError(thrown);
      const waited = (now() - startedAt) / 1000;
      if (!error.retryable || options.signal.aborted || waited >= patienceSeconds) throw error;
      const wait = longest * (0.5 + random() / 2);
      options.onWait?.(error, wait);
      await sleep(wait * 1000, undefined, { signal: options.signal }).catch(() => {
        throw error;
      });
      longest = Math.min(longest * 2, LONGEST_WAIT_SECONDS);
    }
  }
};
