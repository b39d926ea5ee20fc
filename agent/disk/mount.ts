import { mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hasCode, ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';

export interface ReadOnlyMount extends AsyncDisposable {
  readonly path: string;
}

const SAFE = 'ro,nodev,nosuid,noexec';

/**
 * Kernel filesystem and what keeps it from writing even to a read-only mount: ext4 and XFS replay
 * their journals otherwise, btrfs its log tree.
 */
const kernelMounts: Readonly<Record<string, { type: string; options: string }>> = {
  ext2: { type: 'ext4', options: 'noload' },
  ext3: { type: 'ext4', options: 'noload' },
  ext4: { type: 'ext4', options: 'noload' },
  xfs: { type: 'xfs', options: 'norecovery,nouuid' },
  btrfs: { type: 'btrfs', options: 'rescue=nologreplay' },
  vfat: { type: 'vfat', options: 'utf8' },
  ntfs: { type: 'ntfs3', options: 'iocharset=utf8' },
};

/**
 * Mount a filesystem to look inside. The device is not changed, not even its journal. Dispose (or
 * `await using`) unmounts.
 *
 * @throws ImagingError TOOL_FAILED: nothing that can be mounted here
 */
export const mountReadOnly = async (
  device: string,
  type: string,
  options: { signal?: AbortSignal } = {},
): Promise<ReadOnlyMount> => {
  const known = kernelMounts[type];
  if (!known) throw new ImagingError('TOOL_FAILED', `Cannot mount ${device}: ${type || 'no'} filesystem`);
  const path = await mkdtemp(join(tmpdir(), 'mount-'));
  try {
    await mountAt(device, path, type, known, options);
  } catch (error) {
    await rmdir(path);
    throw error;
  }
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      await run('umount', [path]);
      await rmdir(path);
    },
  };
};

const mountAt = async (
  device: string,
  path: string,
  type: string,
  known: { type: string; options: string },
  options: { signal?: AbortSignal },
): Promise<void> => {
  try {
    await run('mount', ['-t', known.type, '-o', `${SAFE},${known.options}`, device, path], options);
  } catch (error) {
    // kernels before 5.15 have no ntfs3; ntfs-3g (FUSE) reads the same
    if (type !== 'ntfs' || !hasCode(error, 'TOOL_FAILED')) throw error;
    await run('ntfs-3g', ['-o', SAFE, device, path], options);
  }
};
