import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../agent/process/run.ts';
import { makeCpio } from './archive.ts';
import { type CacheOptions, type Layer, layer } from './cache.ts';
import { kernelVersion } from './debian.ts';
import { ownSource, SOURCE } from './lists.ts';

/** what a squashfs below an overlay takes; none of them depends on another module in kernel 6.12 */
const MODULES = { loop: 'drivers/block', squashfs: 'fs/squashfs', overlay: 'fs/overlayfs' };

/** `first-stage.cpio`: busybox, three modules and first-stage/init. */
export const firstStage = async (cache: CacheOptions, parts: Layer): Promise<Layer> => {
  const init = join(SOURCE, 'first-stage/init');
  const sources = ['first-stage.ts', 'archive.ts'].map(ownSource);
  return layer(
    cache,
    'first-stage',
    [parts.key, await readFile(init, 'utf8'), ...sources],
    async (folder) => {
      const from = join(parts.folder, 'root');
      const stage = join(folder, 'stage');
      for (const name of ['bin', 'fog', 'layers', 'lib']) await mkdir(join(stage, name), { recursive: true });
      await copyFile(init, join(stage, 'init'));
      await copyFile(join(from, 'usr/bin/busybox'), join(stage, 'bin/busybox'));
      const modules = join(from, 'usr/lib/modules', await kernelVersion(from), 'kernel');
      for (const [name, below] of Object.entries(MODULES)) {
        await copyFile(join(modules, below, `${name}.ko.xz`), join(stage, 'lib', `${name}.ko.xz`));
        // busybox insmod 1.37 hands the file to the kernel as it is
        await run('xz', ['--decompress', join(stage, 'lib', `${name}.ko.xz`)]);
      }
      const paths = [
        'bin',
        'bin/busybox',
        'fog',
        'init',
        'layers',
        'lib',
        ...Object.keys(MODULES).map((name) => `lib/${name}.ko`),
      ];
      await makeCpio(stage, paths, join(folder, 'first-stage.cpio'));
      await writeFile(join(folder, 'contents.txt'), `${paths.join('\n')}\n`);
    },
  );
};
