import { readFile, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { mountReadOnly } from '../disk/mount.ts';
import { hasCode, isErrno } from '../errors.ts';
import type { Manifest } from '../protocol/index.ts';

const linuxRoots = new Set(['ext2', 'ext3', 'ext4', 'xfs', 'btrfs', 'f2fs']);
/** Debian and Ubuntu, then Fedora: where btrfs keeps the root of the system */
const subvolumes = ['', '@/', '@rootfs/', 'root/'];
const names = subvolumes.flatMap((prefix) => [`${prefix}usr/lib/os-release`, `${prefix}etc/os-release`]);

/** Which Linux this is, from os-release of a filesystem mounted read-only; null where there is none. */
export const readOsRelease = async (
  device: string,
  type: string,
  signal: AbortSignal,
): Promise<Manifest['os']> => {
  if (!linuxRoots.has(type)) return null;
  let text: string;
  try {
    await using mount = await mountReadOnly(device, type, { signal });
    text = await readFirst(mount.path);
  } catch (error) {
    if (hasCode(error, 'TOOL_FAILED')) return null;
    throw error;
  }
  const field = (name: string): string =>
    new RegExp(`^${name}="?([^"\n]{0,200})"?$`, 'm').exec(text)?.[1] ?? '';
  return field('NAME') ? { name: field('NAME'), version: field('VERSION_ID') } : null;
};

/** A captured disk's links lead where they like: what leaves the mount is not read. */
const readFirst = async (root: string): Promise<string> => {
  for (const name of names) {
    try {
      const path = await realpath(join(root, name));
      if (path.startsWith(`${root}/`)) return (await readFile(path, 'utf8')).slice(0, 65536);
    } catch (error) {
      if (!['ENOENT', 'ENOTDIR', 'ELOOP', 'EISDIR'].some((errno) => isErrno(error, errno))) throw error;
    }
  }
  return '';
};
