import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ImagingError, isErrno } from '../errors.ts';
import { run } from '../process/run.ts';

/** A set of tools that is not in the initramfs, as the server lists it. */
export interface ToolPack {
  name: string;
  /** of the squashfs file, which is named by it */
  sha256: string;
  /** bytes */
  size: number;
}

export interface UsePackOptions {
  /** write the pack's bytes to this file */
  fetchTo: (path: string, options: { signal?: AbortSignal }) => Promise<void>;
  /** where packs are kept and mounted, in memory */
  folder?: string;
  signal?: AbortSignal;
}

const FOLDER = '/run/fog/packs';

/**
 * Make the tools of a pack part of this system until it restarts: fetch it, check its hash, mount it, and link
 * each of its files at its own path, where programs and libraries look for each other. What the system has
 * already stays. A pack that is in use already costs nothing. Only for the initramfs: the links go below `/`.
 *
 * @returns the folder the pack is mounted on
 * @throws ImagingError CHUNK_CORRUPT (not the bytes that the hash names; nothing was mounted), TOOL_FAILED,
 *   and what `fetchTo` throws
 */
export const usePack = async (pack: ToolPack, options: UsePackOptions): Promise<string> => {
  const { folder = FOLDER, signal } = options;
  const mountPoint = join(folder, pack.sha256);
  if (await isMounted(mountPoint)) return mountPoint;
  const file = `${mountPoint}.squashfs`;
  await mkdir(mountPoint, { recursive: true });
  await fetchChecked(pack, file, options);
  await run('mount', ['-t', 'squashfs', '-o', 'loop,ro', file, mountPoint], signal ? { signal } : {});
  try {
    // links, not a further overlay: overlays stack two deep at most, and the root is one already
    await run('cp', ['--recursive', '--symbolic-link', '--update=none', `${mountPoint}/.`, '/'], {
      ...(signal ? { signal } : {}),
    });
    await assertLinked(pack, mountPoint);
  } catch (error) {
    await run('umount', ['--lazy', mountPoint]);
    throw error;
  }
  return mountPoint;
};

const fetchChecked = async (pack: ToolPack, file: string, options: UsePackOptions): Promise<void> => {
  const { fetchTo, signal } = options;
  const partial = `${file}.partial`;
  try {
    await fetchTo(partial, signal ? { signal } : {});
    const { size } = await stat(partial);
    const actual = await hashOf(partial);
    if (actual !== pack.sha256) {
      throw new ImagingError('CHUNK_CORRUPT', `Cannot use tool pack ${pack.name}: its hash is wrong`, {
        details: { expected: pack.sha256, actual, size, expectedSize: pack.size },
      });
    }
    await rename(partial, file);
  } finally {
    await rm(partial, { force: true });
  }
};

const hashOf = async (file: string): Promise<string> => {
  const hash = createHash('sha256');
  for await (const part of createReadStream(file, { highWaterMark: 1024 * 1024 })) hash.update(part);
  return hash.digest('hex');
};

const isMounted = async (mountPoint: string): Promise<boolean> =>
  (await readFile('/proc/self/mounts', 'utf8')).split('\n').some((line) => line.split(' ')[1] === mountPoint);

/** Every file of the pack is there under its own path. */
const assertLinked = async (pack: ToolPack, mountPoint: string): Promise<void> => {
  for (const entry of await readdir(mountPoint, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join('/', entry.parentPath.slice(mountPoint.length), entry.name);
    try {
      await stat(path);
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
      throw new ImagingError('TOOL_FAILED', `Cannot use tool pack ${pack.name}: ${path} is not in place`, {
        cause: error,
      });
    }
  }
};
