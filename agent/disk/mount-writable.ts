import { ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';
import { type Mount, mountWith, SAFE } from './mount.ts';

const WRITABLE = `rw,${SAFE},noatime`;

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
 * Mount a deployed filesystem, or a snapshot, to change what is in it, at a place that only root can enter: XFS and
 * btrfs are resized, and journals replayed, by the kernel alone. The device must belong to a claimed disk, or to
 * nobody. Dispose unmounts; everything is on the device then.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const mountWritable = async (
  device: string,
  filesystem: string,
  options: { signal?: AbortSignal; timeoutMs?: number } = {},
): Promise<Mount> => {
  const known = mounts[filesystem];
  if (!known && filesystem !== 'ntfs') {
    throw new ImagingError('TOOL_FAILED', `Cannot mount ${device}: ${filesystem || 'no'} filesystem`);
  }
  return await mountWith(async (path) => {
    if (known) await run('mount', ['-t', known.type, '-o', WRITABLE + known.options, device, path], options);
    else await run('ntfs-3g', ['-o', WRITABLE, device, path], options);
  });
};
