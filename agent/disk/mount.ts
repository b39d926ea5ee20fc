import { rmdir } from 'node:fs/promises';
import { setTimeout } from 'node:timers/promises';
import { hasCode, ImagingError } from '../errors.ts';
import { ownFolder } from '../process/owner.ts';
import { run } from '../process/run.ts';

export interface Mount extends AsyncDisposable {
  readonly path: string;
}

/** what no mount of a disk's content may do */
export const SAFE = 'nodev,nosuid,noexec';
/** a slow disk may have much to write back */
const UNMOUNT_MS = 10 * 60_000;
const UNMOUNT_ATTEMPTS = 6;

/**
 * Kernel filesystem and what keeps it from writing even to a read-only mount: ext4 and XFS replay
 * their journals otherwise, btrfs its log tree, F2FS what was synchronised after its last checkpoint.
 */
const kernelMounts: Readonly<Record<string, { type: string; options: string }>> = {
  ext2: { type: 'ext4', options: 'noload' },
  ext3: { type: 'ext4', options: 'noload' },
  ext4: { type: 'ext4', options: 'noload' },
  xfs: { type: 'xfs', options: 'norecovery,nouuid' },
  btrfs: { type: 'btrfs', options: 'rescue=nologreplay' },
  f2fs: { type: 'f2fs', options: 'norecovery' },
  vfat: { type: 'vfat', options: 'utf8' },
  exfat: { type: 'exfat', options: 'iocharset=utf8' },
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
): Promise<Mount> => {
  const known = kernelMounts[type];
  if (!known) throw new ImagingError('TOOL_FAILED', `Cannot mount ${device}: ${type || 'no'} filesystem`);
  return await mountWith(async (path) => await mountAt(device, path, type, known, options));
};

/** A mount at a folder of its own, which goes with it. `mount` does the mounting. */
export const mountWith = async (mount: (path: string) => Promise<void>): Promise<Mount> => {
  const path = await ownFolder('mount');
  try {
    await mount(path);
  } catch (error) {
    await rmdir(path);
    throw error;
  }
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      await unmount(path);
      await rmdir(path);
    },
  };
};

/**
 * "target is busy" passes: a process that is just being started holds our open files until its exec.
 *
 * @throws ImagingError TOOL_FAILED: it stays busy
 */
export const unmount = async (path: string): Promise<void> => {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await run('umount', [path], { timeoutMs: UNMOUNT_MS });
      return;
    } catch (error) {
      if (attempt === UNMOUNT_ATTEMPTS || !hasCode(error, 'TOOL_FAILED')) throw error;
      await setTimeout(200 * attempt);
    }
  }
};

const mountAt = async (
  device: string,
  path: string,
  type: string,
  known: { type: string; options: string },
  options: { signal?: AbortSignal },
): Promise<void> => {
  try {
    await run('mount', ['-t', known.type, '-o', `ro,${SAFE},${known.options}`, device, path], options);
  } catch (error) {
    // kernels before 5.15 have no ntfs3; ntfs-3g (FUSE) reads the same
    if (type !== 'ntfs' || !hasCode(error, 'TOOL_FAILED')) throw error;
    await run('ntfs-3g', ['-o', `ro,${SAFE}`, device, path], options);
  }
};
