import type { Extent } from '../image/extent.ts';

export interface FilesystemUsage {
  /** what the filesystem uses, sorted, disjoint, within the device */
  extents: Extent[];
  /**
   * The smallest partition that can still hold it, bytes. ext, NTFS, btrfs: after its resizer has shrunk it,
   * as far as read-only tools tell. XFS, F2FS, FAT, exFAT cannot shrink: their own size, which may be less
   * than the partition's. null where nobody can tell.
   */
  minimumBytes: number | null;
}

/**
 * One filesystem. `device` is a block device node; nothing here is mounted by anybody.
 * Every method before a deploy's data is written is read-only on the device.
 */
export interface FilesystemDriver {
  /** names that libblkid gives it */
  readonly types: readonly string[];
  /** whether a deploy may give it a larger partition and grow it */
  readonly growable: boolean;
  /**
   * The filesystem's own read-only check. Resolves when it is clean.
   * @throws ImagingError FILESYSTEM_DIRTY: hibernated, or a journal to replay first (ask again then);
   *   FILESYSTEM_CHECK_FAILED: damaged; TOOL_FAILED: it has what no tool here knows or can reach
   */
  check(device: string, signal: AbortSignal): Promise<void>;
  /**
   * Used extents (partclone's map, united with what partclone leaves out) and minimum size.
   * @throws ImagingError TOOL_FAILED, TOOL_TIMEOUT: the caller falls back to raw and says why
   */
  usage(device: string, deviceSize: number, signal: AbortSignal): Promise<FilesystemUsage>;
  /** Grow to fill the device, then prove it with the filesystem's own check. */
  grow?(device: string, signal: AbortSignal): Promise<void>;
  /** Make it anew with the same UUID and label, for content that is not kept (swap). */
  recreate?(device: string, facts: { uuid: string; label: string }, signal: AbortSignal): Promise<void>;
}
