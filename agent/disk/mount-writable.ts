import { mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';

export interface WritableMount {
  readonly path: string;
  /** Unmount; everything is on the device then. */
  close(): Promise<void>;
}

const SAFE = 'rw,nodev,nosuid,noexec,noatime';
/** a slow disk has much to write back */
const UNMOUNT_MS = 10 * 60_000;

/**
 * By filesystem: what mounts it. NTFS by ntfs-3g, which writes to it for the other tools here too, and the
 * same on every kernel: ntfs3 refuses a volume with the mark of ntfsresize. noinit_itable: a mount for seconds begins no background work.
 */
const mounts: Readonly<Record<string, { type: string; options: string }>> = {
  ext2: { type: 'ext4', options: '' },
  ext3: { type: 'ext4', options: '' },
  ext4: { type: 'ext4', options: ',noinit_itable' },
  xfs: { type: 'xfs', options: ',nouuid' },
  btrfs: { type: 'btrfs', options: ',skip_balance' },
  f2fs: { type: 'f2fs', options: '' },
  vfat: { type: 'vfat', options: ',utf8' },
};

/** Whether a deployed filesystem can be changed from here. */
export const isMountable = (filesystem: string): boolean => filesystem === 'ntfs' || filesystem in mounts;

/**
 * Mount a deployed filesystem to change what is in it, at a place that only root can enter. The device
 * must belong to a claimed disk.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const mountWritable = async (
  device: string,
  filesystem: string,
  options: { signal?: AbortSignal } = {},
): Promise<WritableMount> => {
  const known = mounts[filesystem];
  if (!known && filesystem !== 'ntfs') {
    throw new ImagingError('TOOL_FAILED', `Cannot mount ${device}: ${filesystem || 'no'} filesystem`);
  }
  const path = await mkdtemp(join(tmpdir(), 'change-'));
  try {
    if (known) await run('mount', ['-t', known.type, '-o', SAFE + known.options, device, path], options);
    else await run('ntfs-3g', ['-o', SAFE, device, path], options);
  } catch (error) {
    await rmdir(path);
    throw error;
  }
  return {
    path,
    close: async () => {
      await run('umount', [path], { timeoutMs: UNMOUNT_MS });
      await rmdir(path);
    },
  };
};
