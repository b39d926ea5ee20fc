import { isImagingError } from '../errors.ts';
import { parseDumpe2fs } from '../filesystem/ext.ts';
import type { Extent } from '../image/extent.ts';
import { run } from '../process/run.ts';

/** on a sick disk the lookup itself meets bad sectors: a name is a courtesy, not worth an hour */
const LOOKUP_MS = 120_000;
/** places that are looked up, and names that are returned */
const PLACES = 256;
const NAMES = 20;

/**
 * Files that use these bytes of a filesystem, as paths from its root, where that is cheap to know (ext and NTFS);
 * empty where it is not, or where the filesystem's tool cannot tell. Read-only.
 */
export const filesAt = async (
  device: string,
  filesystem: string,
  extents: readonly Extent[],
  signal: AbortSignal,
): Promise<string[]> => {
  const lookUp = filesystem.startsWith('ext') ? ext : filesystem === 'ntfs' ? ntfs : null;
  if (!lookUp || extents.length === 0) return [];
  try {
    const names = await lookUp(device, extents, signal);
    return [...new Set(names)].slice(0, NAMES);
  } catch (error) {
    signal.throwIfAborted();
    if (isImagingError(error)) return [];
    throw error;
  }
};

const ext = async (device: string, extents: readonly Extent[], signal: AbortSignal): Promise<string[]> => {
  const options = { signal, timeoutMs: LOOKUP_MS };
  const { stdout: header } = await run('dumpe2fs', ['-h', device], options);
  const blocks = unitsOf(extents, parseDumpe2fs(header).blockSize);
  // debugfs 1.47: "<block> TAB <inode>", or "<block> TAB <block not found>"
  const found = await run('debugfs', ['-R', `icheck ${blocks.join(' ')}`, device], options);
  const inodes = [...found.stdout.matchAll(/^\d+\t(\d+)$/gm)].map(([, inode]) => inode);
  if (inodes.length === 0) return [];
  const named = await run('debugfs', ['-R', `ncheck ${[...new Set(inodes)].join(' ')}`, device], options);
  // debugfs 1.47.2 says //file for what lies in the root, 1.47.0 /file
  return [...named.stdout.matchAll(/^\d+\t(.+)$/gm)].map(([, name = '']) => name.replace(/^\/+/, '/'));
};

const ntfs = async (device: string, extents: readonly Extent[], signal: AbortSignal): Promise<string[]> => {
  const names: string[] = [];
  for (const { offset, length } of extents.slice(0, 8)) {
    const range = `${Math.floor(offset / 512)}-${Math.ceil((offset + length) / 512) - 1}`;
    const { stdout } = await run('ntfscluster', ['--force', '--sector', range, device], {
      signal,
      timeoutMs: LOOKUP_MS,
      okExitCodes: [0, 1],
    });
    // ntfscluster 2022.10: "Inode 64 /folder/file/$DATA", "Inode 9 /$Secure/$DATA($SDS)"
    names.push(...[...stdout.matchAll(/^Inode \d+ (\/.*)\/\$[^/]*$/gm)].map(([, name = '']) => name));
  }
  return names;
};

const unitsOf = (extents: readonly Extent[], unit: number): number[] => {
  const units: number[] = [];
  for (const { offset, length } of extents) {
    for (let at = Math.floor(offset / unit); at * unit < offset + length; at += 1) {
      units.push(at);
      if (units.length >= PLACES) return units;
    }
  }
  return units;
};
