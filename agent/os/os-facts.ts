import { mountReadOnly } from '../disk/mount.ts';
import { hasCode, isErrno } from '../errors.ts';
import type { Manifest } from '../protocol/index.ts';
import { findLinuxRoot, linuxFilesystems } from './linux-root.ts';
import { openHive, readValues, textOf } from './registry-hive.ts';
import { openInside, openTree, readInside, type Tree } from './tree.ts';

const MAX_RELEASE = 65_536;

/**
 * Which operating system lives in a filesystem: Linux by its os-release, Windows by its registry. Mounted
 * read-only; null where there is none, or none that can be looked into.
 *
 * @throws ImagingError TASK_CANCELLED
 */
export const readOs = async (
  device: string,
  filesystem: string,
  signal: AbortSignal,
): Promise<Manifest['os']> => {
  const windows = filesystem === 'ntfs';
  if (!windows && !linuxFilesystems.includes(filesystem)) return null;
  try {
    await using mount = await mountReadOnly(device, filesystem, { signal });
    await using tree = await openTree(mount.path, { ignoreCase: windows });
    return windows ? await readWindows(tree) : await readLinux(tree);
  } catch (error) {
    // a hive that is none, a filesystem that does not mount, damage that the kernel meets: no facts
    if (hasCode(error, 'TOOL_FAILED') || isErrno(error, 'EIO') || isErrno(error, 'EUCLEAN')) return null;
    throw error;
  }
};

const readLinux = async (tree: Tree): Promise<Manifest['os']> => {
  const root = await findLinuxRoot(tree);
  if (root === null) return null;
  for (const name of ['etc/os-release', 'usr/lib/os-release']) {
    const text = (await readInside(tree, `${root}/${name}`, MAX_RELEASE))?.toString('utf8');
    if (text !== undefined) return parseOsRelease(text);
  }
  return null;
};

/** os-release(5): shell assignments, quoted or not. Null where it has no name. Pure. */
export const parseOsRelease = (text: string): Manifest['os'] => {
  const field = (name: string): string => {
    const [, double, single, bare] =
      new RegExp(
        `^${name}=(?:"((?:[^"\\\\\\n]|\\\\.){0,200})"|'([^'\\n]{0,200})'|([^\\s"']{0,200}))[ \\t\\r]*$`,
        'm',
      ).exec(text) ?? [];
    return (double ?? single ?? bare ?? '').replaceAll(/\\(["$`\\])/g, '$1');
  };
  const name = field('NAME');
  return name ? { name, version: field('VERSION_ID') } : null;
};

export const SOFTWARE_HIVE = 'Windows/System32/config/SOFTWARE';

const readWindows = async (tree: Tree): Promise<Manifest['os']> => {
  await using file = await openInside(tree, SOFTWARE_HIVE);
  if (!file) return null;
  const hive = await openHive(file.handle);
  const values = await readValues(hive, ['Microsoft', 'Windows NT', 'CurrentVersion']);
  const text = (name: string): string => textOf(values, name) ?? '';
  return windowsOf({
    product: text('ProductName'),
    edition: text('EditionID'),
    build: text('CurrentBuildNumber') || text('CurrentBuild'),
    release: text('DisplayVersion') || text('ReleaseId'),
  });
};

export interface WindowsFacts {
  product: string;
  edition: string;
  build: string;
  /** 22H2; 1709 on older ones */
  release: string;
}

/** Windows 11 still calls itself "Windows 10 …" in the registry; its builds begin at 22000. Pure. */
export const windowsOf = ({ product, edition, build, release }: WindowsFacts): Manifest['os'] => {
  const name = product || (edition ? `Windows ${edition}` : '');
  if (!name) return null;
  const actual = Number(build) >= 22_000 ? name.replace(/^Windows 10\b/, 'Windows 11') : name;
  return {
    name: actual.slice(0, 200),
    version: [release, build && `build ${build}`].filter(Boolean).join(' ').slice(0, 200),
  };
};
