import type { Disk } from './disk.ts';

declare const claimed: unique symbol;

/** The right to write to one disk. Only claimDisk makes one. `await using` releases it. */
export interface DiskClaim extends AsyncDisposable {
  readonly [claimed]: true;
  readonly disk: Disk;
  readonly path: string;
  /** read-only again, proved; may be called twice */
  release(): Promise<void>;
}
/** @throws ImagingError DISK_CHANGED, DISK_IN_USE, DISK_WRITE_FAILED (write-protected) */
export declare const claimDisk: (disk: Disk, options?: { signal?: AbortSignal }) => Promise<DiskClaim>;
/** @throws ImagingError INTERNAL: not a live claim */
export declare const assertClaim: (claim: DiskClaim) => void;
