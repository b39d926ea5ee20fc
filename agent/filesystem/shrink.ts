import { shrinkBtrfs } from './shrink-btrfs.ts';
import { shrinkExt } from './shrink-ext.ts';
import { shrinkNtfs } from './shrink-ntfs.ts';

export interface ShrinkOptions {
  signal: AbortSignal;
  /** what is going on, for people: "checking", "moving 40 %" */
  onStep?: (text: string) => void;
}

/**
 * Makes one kind of filesystem smaller. It works on a regular file that holds the partition's content and
 * nothing else: captured disks are never shrunk, their copies in the server's scratch space are.
 */
export interface Shrinker {
  /** names that libblkid gives the filesystem */
  readonly types: readonly string[];
  /** Why this machine cannot do it, to end a sentence with; null where it can. */
  obstacle(): string | null;
  /**
   * Make the filesystem fit into the first `size` bytes of `file`: checked by its own tool before and after.
   * The file keeps its length: cutting it off is the caller's.
   *
   * @throws ImagingError TARGET_TOO_SMALL (`neededBytes` in details where the tool tells), FILESYSTEM_CHECK_FAILED,
   *   FILESYSTEM_DIRTY, TOOL_FAILED, TOOL_TIMEOUT, TOOL_MISSING, TASK_CANCELLED
   */
  shrink(file: string, size: number, options: ShrinkOptions): Promise<void>;
}

/**
 * XFS and F2FS cannot be made smaller at all, FAT and exFAT by no tool that can be trusted. What holds LVM is
 * put together anew (volumes/lvm/shrink-plan.ts), LUKS keeps its size.
 */
const shrinkers: readonly Shrinker[] = [shrinkExt, shrinkNtfs, shrinkBtrfs];

/** The shrinker for libblkid's name of a filesystem, or null. */
export const shrinkerFor = (type: string): Shrinker | null =>
  shrinkers.find(({ types }) => types.includes(type)) ?? null;
