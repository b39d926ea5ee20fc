import { cp, lstat, mkdir, readdir, readlink } from 'node:fs/promises';
import { dirname, join, matchesGlob, normalize } from 'node:path';

/**
 * Copy the firmware files that the chosen modules name, as changed by firmware.txt, from unpacked Debian
 * packages into a root. Names that no package has are left out: modules name files of other vendors' packages.
 *
 * @returns what was copied, below /usr/lib/firmware
 */
export const installFirmware = async (
  parts: string,
  root: string,
  named: readonly string[],
  list: readonly string[],
): Promise<string[]> => {
  const from = join(parts, 'usr/lib/firmware');
  const to = join(root, 'usr/lib/firmware');
  const have = await filesBelow(from);
  const chosen = selectFirmware(have, named, list);
  for (const path of [...chosen]) {
    // a link's target comes with it
    for (let at = path; (await lstat(join(from, at))).isSymbolicLink(); ) {
      at = normalize(join(dirname(at), await readlink(join(from, at))));
      if (!have.includes(at)) break;
      chosen.add(at);
    }
  }
  const paths = [...chosen].sort();
  for (const path of paths) {
    await mkdir(dirname(join(to, path)), { recursive: true });
    await cp(join(from, path), join(to, path), { verbatimSymlinks: true });
  }
  return paths;
};

/** Pure part: which of the files at hand are named by a module or by a `+` line and by no `-` line. */
export const selectFirmware = (
  have: readonly string[],
  named: readonly string[],
  list: readonly string[],
): Set<string> => {
  const wanted = [...named, ...list.filter((line) => line.startsWith('+')).map((line) => line.slice(1))];
  const plain = new Set(wanted);
  // modinfo may name a glob: "qed/qed_init_values_zipped-*.bin"
  const globs = wanted.filter((name) => /[*?[]/.test(name));
  const without = list.filter((line) => line.startsWith('-')).map((line) => line.slice(1));
  return new Set(
    have
      .filter((path) => plain.has(path) || globs.some((glob) => matchesGlob(path, glob)))
      .filter((path) => !without.some((glob) => matchesGlob(path, glob))),
  );
};

const filesBelow = async (folder: string): Promise<string[]> =>
  (await readdir(folder, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() || entry.isSymbolicLink())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
