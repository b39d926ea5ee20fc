import type { DiskClaim } from '../disk/claim.ts';
import type { Evidence } from '../protocol/index.ts';

export interface SetBootEntryOptions {
  claim: DiskClaim;
  /** number of the ESP on that disk */
  partition: number;
  /** device node of the ESP, to look for the loader */
  device: string;
  /** name in the firmware's menu */
  label: string;
  /** `\EFI\…`; default: the best known loader found on the ESP */
  loader?: string;
  signal?: AbortSignal;
}
export interface BootEntryResult {
  evidence: Evidence[];
  warnings: string[];
  /** loader path with backslashes */
  loader: string;
  /** four hex digits; null where the firmware's own fallback path is relied on */
  entry: string | null;
}
/** @throws ImagingError BOOT_ENTRY_FAILED */
export declare const setBootEntry: (options: SetBootEntryOptions) => Promise<BootEntryResult>;
