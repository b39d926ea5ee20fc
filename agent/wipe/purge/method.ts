import { setTimeout as sleep } from 'node:timers/promises';
import { type ErrorCode, ImagingError } from '../../errors.ts';
import type { run } from '../../process/run.ts';

export interface PurgeTools {
  run: typeof run;
  log: (text: string) => void;
  /** share of the drive's own work that is done, 0..1 */
  onShare: (share: number) => void;
  /** between two looks at the drive's status; tests do not wait */
  pollMs: number;
}

/** One way of a drive to erase itself. */
export interface PurgeMethod {
  name: string;
  /** what it is worth, by which standard */
  level: string;
  /** Wait for an erasure that an earlier attempt began: until its end the drive takes nothing else. */
  settle(): Promise<void>;
  /** the drive's status now, in its own words: what a later "ok" is compared with */
  status(): Promise<string>;
  /**
   * Begin, and wait for the end that the drive itself reports. Cannot be stopped: the drive goes on through a restart.
   *
   * @throws ImagingError PURGE_FAILED (the drive says so), TOOL_FAILED (it refused)
   */
  erase(): Promise<void>;
}

/** What a drive offers. Without methods, `reasons` and `code` say why. */
export interface PurgeOffer {
  methods: PurgeMethod[];
  reasons: string[];
  code: Extract<ErrorCode, 'PURGE_IMPOSSIBLE' | 'DISK_FROZEN' | 'DISK_LOCKED'>;
}

export const SANITIZE_LEVEL = 'Purge (IEEE 2883-2022)';

export const noOffer = (reason: string, code: PurgeOffer['code'] = 'PURGE_IMPOSSIBLE'): PurgeOffer => ({
  methods: [],
  reasons: [reason],
  code,
});

/** the drive of the largest size, overwriting itself several times */
const LONGEST_MS = 7 * 24 * 3600_000;

/** Ask until the drive says that it is no longer at work. */
export const untilIdle = async <T extends { share: number | null }>(
  tools: PurgeTools,
  look: () => Promise<T>,
): Promise<T> => {
  const started = performance.now();
  for (;;) {
    const found = await look();
    if (found.share === null) return found;
    tools.onShare(found.share);
    if (performance.now() - started > LONGEST_MS) {
      throw new ImagingError(
        'PURGE_FAILED',
        'Cannot finish the erasure: the drive is still at work after a week',
      );
    }
    await sleep(tools.pollMs);
  }
};
