import { glob, lstat, mkdir, readdir, readFile, rm, rmdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type CacheOptions, type Layer, layer } from './cache.ts';
import { debianRoot } from './debian.ts';
import { ownSource, readList, SOURCE } from './lists.ts';
import { neededLibraries } from './prune.ts';
import { makeSquashfs } from './squashfs.ts';

export interface Pack {
  name: string;
  layer: Layer;
  file: string;
}

/** Every pack of packages/pack-NAME.txt: a squashfs of only the files that its packages add to the base. */
export const buildPacks = async (cache: CacheOptions, base: Layer): Promise<Pack[]> => {
  const packs: Pack[] = [];
  for (const entry of (await readdir(join(SOURCE, 'packages'))).sort()) {
    const name = /^pack-(.+)\.txt$/.exec(entry)?.[1];
    if (name) packs.push(await buildPack(cache, base, name));
  }
  return packs;
};

const buildPack = async (cache: CacheOptions, base: Layer, name: string): Promise<Pack> => {
  const packages = await readList(`packages/pack-${name}.txt`);
  const drop = await readList('packages/drop.txt');
  const sources = ['packs.ts', 'debian.ts', 'squashfs.ts'].map(ownSource);
  const built = await layer(
    cache,
    `pack-${name}`,
    [base.key, ...packages, '', ...drop, '', ...sources],
    async (folder) => {
      const root = join(folder, 'root');
      await debianRoot(root, { packages, variant: 'extract' });
      for (const pattern of drop) {
        for await (const path of glob(pattern.slice(1), { cwd: root })) {
          await rm(join(root, path), { recursive: true, force: true });
        }
      }
      const have = new Set((await readFile(join(base.folder, 'files.txt'), 'utf8')).split('\n'));
      await dropKnown(root, '', have);
      await dropUnneeded(root, have);
      await mkdir(root, { recursive: true });
      await makeSquashfs(root, join(folder, 'pack.squashfs'));
      await rm(root, { recursive: true });
    },
  );
  return { name, layer: built, file: join(built.folder, 'pack.squashfs') };
};

/** Remove what the base has too, and folders that are empty then; only /usr, /etc and /var/lib are a pack's to fill. */
const dropKnown = async (root: string, below: string, have: ReadonlySet<string>): Promise<void> => {
  for (const name of await readdir(join(root, below))) {
    const path = below === '' ? name : `${below}/${name}`;
    const isFolder = (await lstat(join(root, path))).isDirectory();
    if (isFolder && (below !== '' || ['usr', 'etc'].includes(name))) {
      await dropKnown(root, path, have);
      if ((await readdir(join(root, path))).length === 0) await rmdir(join(root, path));
    } else if (below === '' || have.has(path)) await rm(join(root, path), { recursive: true });
  }
};

/** Dependencies bring libraries that only dropped programs need. */
const dropUnneeded = async (root: string, have: ReadonlySet<string>): Promise<void> => {
  const { needs, missing } = await neededLibraries(root);
  const libraries = new Set([...have].map((path) => basename(path)));
  const lost = missing.filter((line) => !libraries.has(line.split(' needs ')[1] ?? ''));
  if (lost.length > 0) throw new Error(`Cannot make a tool pack: ${lost.join('; ')}`);
  const folder = join(root, 'usr/lib/x86_64-linux-gnu');
  for (const name of await readdir(folder).catch(() => [])) {
    if (/\.so(\.|$)/.test(name) && !needs.has(name)) await rm(join(folder, name));
  }
};
