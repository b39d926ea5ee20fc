import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../agent/process/run.ts';
import { type CacheOptions, type Layer, layer } from './cache.ts';
import { debianRoot, kernelVersion, SUITE } from './debian.ts';
import { installFirmware } from './firmware.ts';
import { ownSource, readList } from './lists.ts';
import { chooseModules, installModules } from './modules.ts';
import { prune } from './prune.ts';
import { makeSquashfs } from './squashfs.ts';

/** The installed Debian packages of packages/base.txt, as mmdebstrap leaves them: `root/`. */
export const debianPackages = async (cache: CacheOptions): Promise<Layer> => {
  const packages = await readList('packages/base.txt');
  return layer(cache, 'debian', [SUITE, ...packages, ownSource('debian.ts')], (folder) =>
    debianRoot(join(folder, 'root'), { packages, variant: 'essential' }),
  );
};

/** The packages of packages/parts.txt, unpacked only: `root/`. */
export const debianParts = async (cache: CacheOptions): Promise<Layer> => {
  const packages = await readList('packages/parts.txt');
  return layer(cache, 'parts', [SUITE, ...packages, ownSource('debian.ts')], (folder) =>
    debianRoot(join(folder, 'root'), { packages, variant: 'extract' }),
  );
};

/** `base.squashfs`: tools, modules, firmware; `files.txt`: what is in it, for the packs that add to it. */
export const baseLayer = async (cache: CacheOptions, debian: Layer, parts: Layer): Promise<Layer> => {
  const lists = {
    modules: await readList('modules.txt'),
    firmware: await readList('firmware.txt'),
    drop: await readList('packages/drop.txt'),
  };
  const sources = ['base.ts', 'modules.ts', 'firmware.ts', 'prune.ts', 'squashfs.ts'].map(ownSource);
  const inputs = [debian.key, parts.key, JSON.stringify(lists), ...sources];
  return layer(cache, 'base', inputs, async (folder) => {
    const root = join(folder, 'root');
    const from = join(parts.folder, 'root');
    await run('cp', ['-a', join(debian.folder, 'root'), root], { timeoutMs: 120_000 });
    await prune(root, lists.drop);
    const kernel = await kernelVersion(from);
    const modules = await chooseModules(from, kernel, lists.modules);
    await installModules(from, root, kernel, modules.paths);
    await installFirmware(from, root, modules.firmware, lists.firmware);
    // mount points and what the machine itself writes; devices come from the kernel
    await rm(join(root, 'dev'), { recursive: true });
    for (const name of ['dev', 'fog', 'proc', 'run', 'sys', 'tmp'])
      await mkdir(join(root, name), { recursive: true });
    await writeFile(join(root, 'etc/machine-id'), '');
    // mmdebstrap copies these two from the machine that builds
    await writeFile(join(root, 'etc/hostname'), 'fog\n');
    await writeFile(join(root, 'etc/resolv.conf'), '');
    await makeSquashfs(root, join(folder, 'base.squashfs'));
    const files = await readdir(root, { recursive: true });
    await writeFile(join(folder, 'files.txt'), `${files.sort().join('\n')}\n`);
    await rm(root, { recursive: true });
  });
};
