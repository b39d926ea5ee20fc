import type { DiskHint } from '../protocol/index.ts';
import type { Disk } from './disk.ts';

/** @throws ImagingError DISK_NOT_FOUND, DISK_AMBIGUOUS */
export declare const selectDisk: (
  disks: readonly Disk[],
  hint: DiskHint | undefined,
  purpose: 'capture' | 'deploy',
) => Disk;
