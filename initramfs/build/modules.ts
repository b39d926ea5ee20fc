import { cp, mkdir, readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { run } from '../../agent/process/run.ts';

export interface Modules {
  /** paths below the version's folder, `kernel/drivers/…/x.ko.xz`, sorted */
  paths: string[];
  /** names below /usr/lib/firmware that these modules may ask for */
  firmware: string[];
}

/**
 * The modules that a list chooses in an unpacked Debian kernel, with everything they depend on.
 *
 * @throws Error when an entry matches nothing: Debian renamed or dropped it, and silence would lose a driver
 */
export const chooseModules = async (
  parts: string,
  kernel: string,
  list: readonly string[],
): Promise<Modules> => {
  // depmod has not run in a root that was only unpacked; Debian 12 hosts may have no kmod, the root has one
  await run('chroot', [parts, '/usr/sbin/depmod', '-a', kernel]);
  const folder = join(parts, 'usr/lib/modules', kernel);
  const dependencies = parseDependencies(await readFile(join(folder, 'modules.dep'), 'utf8'));
  const builtin = new Set((await readFile(join(folder, 'modules.builtin'), 'utf8')).split('\n'));
  const paths = selectModules(list, dependencies, builtin);
  const { stdout } = await run(
    'chroot',
    [
      parts,
      '/usr/sbin/modinfo',
      '-F',
      'firmware',
      ...paths.map((path) => join('/usr/lib/modules', kernel, path)),
    ],
    { timeoutMs: 120_000 },
  );
  const firmware = [...new Set(stdout.split('\n').filter(Boolean))].sort();
  return { paths, firmware };
};

/** Pure part of chooseModules: entries of modules.txt against modules.dep and modules.builtin. */
export const selectModules = (
  list: readonly string[],
  dependencies: ReadonlyMap<string, readonly string[]>,
  builtin: ReadonlySet<string> = new Set(),
): string[] => {
  const all = [...dependencies.keys()];
  const chosen = new Set<string>();
  const match = (entry: string): string[] => {
    const found = all.filter((path) => matches(path, entry));
    const inside = [...builtin].some((path) => matches(path, entry));
    if (found.length === 0 && !inside) throw new Error(`Cannot find kernel module ${entry} (modules.txt)`);
    return found;
  };
  for (const entry of list) if (!entry.startsWith('-')) for (const path of match(entry)) chosen.add(path);
  for (const entry of list)
    if (entry.startsWith('-')) for (const path of match(entry.slice(1))) chosen.delete(path);
  for (const path of chosen) for (const needed of dependencies.get(path) ?? []) chosen.add(needed);
  return [...chosen].sort();
};

/** Put chosen modules into a root and index them for modprobe. */
export const installModules = async (
  parts: string,
  root: string,
  kernel: string,
  paths: readonly string[],
): Promise<void> => {
  const from = join(parts, 'usr/lib/modules', kernel);
  const to = join(root, 'usr/lib/modules', kernel);
  await mkdir(to, { recursive: true });
  for (const path of paths) {
    await mkdir(dirname(join(to, path)), { recursive: true });
    await cp(join(from, path), join(to, path), { preserveTimestamps: true });
  }
  for (const name of await readdir(from)) {
    if (/^modules\.(order|builtin)/.test(name)) await cp(join(from, name), join(to, name));
  }
  await run('chroot', [root, '/usr/sbin/depmod', '-a', kernel]);
};

const matches = (path: string, entry: string): boolean =>
  entry.endsWith('/')
    ? path.startsWith(`kernel/${entry}`)
    : path.replace(/\.ko(\.xz)?$/, '') === `kernel/${entry}`;

export const parseDependencies = (text: string): Map<string, string[]> =>
  new Map(
    text
      .split('\n')
      .filter(Boolean)
      .map((line) => {
        const [path = '', needed = ''] = line.split(':');
        return [path, needed.trim().split(' ').filter(Boolean)];
      }),
  );
