import { glob, lstat, readdir, readlink, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { run } from '../../agent/process/run.ts';

/** libraries that are opened by name at run time: name lookups, a thread's cancellation */
const KEPT_LIBRARIES = /^(libnss_(dns|files)|libresolv|libgcc_s|libdl|libm|libpthread|librt|ld-linux)/;

/**
 * Take the dropped paths out of an installed root, then links that lead nowhere, then shared libraries that
 * nothing needs any more.
 *
 * @throws Error when a program that stays has lost a library
 */
export const prune = async (root: string, drop: readonly string[]): Promise<void> => {
  for (const pattern of drop) {
    for await (const path of glob(pattern.replace(/^\//, ''), { cwd: root })) {
      await rm(join(root, path), { recursive: true, force: true });
    }
  }
  await dropDeadLinks(root);
  await dropUnneededLibraries(root);
};

const dropDeadLinks = async (root: string): Promise<void> => {
  for (const folder of ['usr/bin', 'usr/sbin', 'usr/lib']) {
    for (const entry of await readdir(join(root, folder), { withFileTypes: true })) {
      if (!entry.isSymbolicLink()) continue;
      if (!(await leadsSomewhere(root, join(root, folder, entry.name))))
        await rm(join(root, folder, entry.name));
    }
  }
};

/** Follow a link as the running system will, where `root` is `/`. */
const leadsSomewhere = async (root: string, path: string, depth = 0): Promise<boolean> => {
  if (depth > 20) return false;
  try {
    if (!(await lstat(path)).isSymbolicLink()) return true;
  } catch {
    // a folder on the way may itself be a link (/bin, /lib): ask the kernel
    return (
      (await run('chroot', [root, '/usr/bin/test', '-e', path.slice(root.length)], { okExitCodes: [0, 1] }))
        .exitCode === 0
    );
  }
  const target = await readlink(path);
  const next = target.startsWith('/') ? join(root, target) : resolve(dirname(path), target);
  return next.startsWith(root) && leadsSomewhere(root, next, depth + 1);
};

const dropUnneededLibraries = async (root: string): Promise<void> => {
  const { needs, missing } = await neededLibraries(root);
  if (missing.length > 0) throw new Error(`Cannot drop packages' files: ${missing.join('; ')}`);
  const folder = join(root, 'usr/lib/x86_64-linux-gnu');
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (!/\.so(\.|$)/.test(entry.name) || entry.isDirectory()) continue;
    if (!needs.has(entry.name) && !KEPT_LIBRARIES.test(entry.name)) await rm(join(folder, entry.name));
  }
};

export interface Needs {
  /** file names of every library that a program needs, links and what they lead to */
  needs: Set<string>;
  /** "program needs library" where there is none */
  missing: string[];
}

/** What the programs of a root need, by the DT_NEEDED entries that readelf finds. */
export const neededLibraries = async (root: string): Promise<Needs> => {
  const files = await regularFiles(join(root, 'usr'));
  const needed = await readNeeded(files);
  const libraries = new Map<string, string>();
  const folders = [
    'usr/lib/x86_64-linux-gnu',
    'usr/lib/x86_64-linux-gnu/systemd',
    'usr/lib/systemd',
    'usr/lib',
  ];
  for (const folder of folders.map((name) => join(root, name))) {
    for (const entry of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
      if (!entry.isDirectory() && !libraries.has(entry.name))
        libraries.set(entry.name, join(folder, entry.name));
    }
  }
  const needs = new Set<string>();
  const missing: string[] = [];
  // a program is whatever is not a library of the linker's own folder
  const waiting = [...needed.keys()].filter((path) => {
    const name = basename(path);
    return libraries.get(name) !== path || KEPT_LIBRARIES.test(name);
  });
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    for (const name of needed.get(path) ?? []) {
      if (needs.has(name)) continue;
      const at = libraries.get(name);
      if (at === undefined) {
        missing.push(`${path.slice(root.length)} needs ${name}`);
        continue;
      }
      needs.add(name);
      const target = (await lstat(at)).isSymbolicLink() ? resolve(dirname(at), await readlink(at)) : at;
      needs.add(basename(target));
      waiting.push(target);
    }
  }
  return { needs, missing };
};

const regularFiles = async (folder: string): Promise<string[]> =>
  (await readdir(folder, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && !/\.(ko\.xz|bin|fw|txt|conf|rules|hwdb)$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => !path.includes('/lib/firmware/') && !path.includes('/lib/modules/'));

const readNeeded = async (files: readonly string[]): Promise<Map<string, string[]>> => {
  const needed = new Map<string, string[]>();
  for (let at = 0; at < files.length; at += 500) {
    const part = files.slice(at, at + 500);
    // exit code 1: some of these are no ELF files
    const { stdout } = await run('readelf', ['-d', ...part], { okExitCodes: [0, 1] });
    let file = '';
    for (const line of stdout.split('\n')) {
      file = /^File: (.+)$/.exec(line)?.[1] ?? file;
      const library = /\(NEEDED\).*\[(.+)\]$/.exec(line)?.[1];
      if (library) needed.set(file, [...(needed.get(file) ?? []), library]);
      else if (line.startsWith('Dynamic section') && !needed.has(file)) needed.set(file, []);
    }
  }
  return needed;
};
