import type { ByteRange } from '../protocol/index.ts';
import type { DiskClaim } from './claim.ts';

export interface DiscardResult {
  /** bytes */
  discarded: number;
  /** why nothing or not all was discarded; for the task's warnings */
  warning: string | null;
}
/** Never throws but TASK_CANCELLED. */
export declare const discardRanges: (
  claim: DiskClaim,
  ranges: readonly ByteRange[],
  options?: { signal?: AbortSignal },
) => Promise<DiscardResult>;
