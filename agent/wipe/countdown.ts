import { setTimeout as sleep } from 'node:timers/promises';
import { ImagingError } from '../errors.ts';

export interface CountdownOptions {
  seconds: number;
  /** told every second: how many are left */
  show: (left: number) => void;
  /** resolves when somebody at the machine wants it to stop; never, where nobody can */
  stopped: Promise<unknown>;
  signal: AbortSignal;
}

/**
 * The last chance to stop before the first write. Where nobody does anything it goes on by itself.
 *
 * @throws ImagingError TASK_CANCELLED: stopped at the machine; the signal's reason
 */
export const countDown = async ({ seconds, show, stopped, signal }: CountdownOptions): Promise<void> => {
  for (let left = seconds; left > 0; left--) {
    show(left);
    const second = sleep(1000, 'went by' as const, { signal });
    const ended = await Promise.race([second, stopped.then(() => 'stopped' as const)]);
    if (ended === 'stopped') {
      throw new ImagingError(
        'TASK_CANCELLED',
        'Cannot begin the wipe: stopped at the machine; nothing was written',
      );
    }
  }
};
