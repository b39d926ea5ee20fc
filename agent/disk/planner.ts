import type { DiskFacts, Firmware, Manifest, Plan } from '../protocol/index.ts';

export interface PlanOptions {
  /** how the target machine boots */
  firmware: Firmware;
  grow: boolean;
  /** `d1`…; needed only where the image has several disks */
  imageDisk?: string;
  /** whether a filesystem (libblkid's name) can be grown; default: what agent/filesystem has drivers for */
  growable?: (filesystem: string) => boolean;
}
/** @throws ImagingError TARGET_TOO_SMALL, SECTOR_SIZE_MISMATCH, FIRMWARE_MISMATCH, LAYOUT_UNSUPPORTED, IMAGE_INVALID */
export declare const planDeploy: (manifest: Manifest, target: DiskFacts, options: PlanOptions) => Plan;
