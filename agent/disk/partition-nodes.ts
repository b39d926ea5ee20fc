import type { Plan } from '../protocol/index.ts';
import type { DiskClaim } from './claim.ts';

/** Tell the kernel of the plan's partitions before a table exists. Name in the image (`p1`) -> device node. */
export declare const addPartitions: (
  claim: DiskClaim,
  plan: Plan,
  options?: { signal?: AbortSignal },
) => Promise<Map<string, string>>;
/** Make the kernel forget all partitions of the disk. */
export declare const removePartitions: (
  claim: DiskClaim,
  options?: { signal?: AbortSignal },
) => Promise<void>;
/** Write back and drop the page cache of one node (whole disk or partition): they do not see each other's. */
export declare const flushDevice: (path: string, options?: { signal?: AbortSignal }) => Promise<void>;
