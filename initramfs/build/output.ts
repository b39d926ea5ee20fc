import { randomUUID } from 'node:crypto';
import { copyFile, mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { makeCpio } from './archive.ts';
import { ARTEFACTS, type Artefacts, artefactsSchema, describeFile, readArtefacts } from './artefacts.ts';
import { type CacheOptions, hashOf, type Layer, layer } from './cache.ts';
import { concatenate } from './concatenate.ts';
import { kernelVersion, packageVersions } from './debian.ts';
import { ownSource } from './lists.ts';
import type { Pack } from './packs.ts';

export interface Ingredients {
  debian: Layer;
  parts: Layer;
  firstStage: Layer;
  /** the lowest first */
  layers: { name: string; layer: Layer }[];
  packs: Pack[];
}

/** Files of Debian packages that go out as they are, signatures and all. */
const copies = (kernel: string): Record<string, string> => ({
  vmlinuz: `boot/vmlinuz-${kernel}`,
  'shimx64.efi': 'usr/lib/shim/shimx64.efi.signed',
  'grubx64.efi': 'usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed',
  'undionly.kpxe': 'usr/lib/ipxe/undionly.kpxe',
  'ipxe.efi': 'usr/lib/ipxe/ipxe.efi',
  'snponly.efi': 'usr/lib/ipxe/snponly.efi',
  // what a disk boots with under Secure Boot: for test machines
  'disk-loader/shimx64.efi': 'usr/lib/shim/shimx64.efi.signed',
  'disk-loader/grubx64.efi': 'usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed',
});

/** Everything that goes into the output folder, with its description. */
export const assemble = async (cache: CacheOptions, from: Ingredients): Promise<Layer> => {
  const layers = [from.debian, from.parts, from.firstStage, ...from.layers, ...from.packs];
  const keys = layers.map((one) => ('key' in one ? one.key : one.layer.key));
  const inputs = hashOf([...keys, ownSource('output.ts'), ownSource('archive.ts')]);
  return layer(cache, 'output', [inputs], async (folder) => {
    const root = join(from.parts.folder, 'root');
    const kernel = await kernelVersion(root);
    const files: Artefacts['files'] = {};
    await makeInitrd(folder, from);
    files['initrd.img'] = await describeFile(join(folder, 'initrd.img'));
    for (const [to, source] of Object.entries(copies(kernel))) {
      await mkdir(dirname(join(folder, to)), { recursive: true });
      await copyFile(join(root, source), join(folder, to));
      files[to] = await describeFile(join(folder, to));
    }
    const packs: Artefacts['packs'] = {};
    await mkdir(join(folder, 'packs'));
    for (const { name, file } of from.packs) {
      packs[name] = await describeFile(file);
      await copyFile(file, join(folder, 'packs', `${packs[name].sha256}.squashfs`));
    }
    const described = from.layers.map(async (one) => ({
      name: one.name,
      ...(await describeFile(join(one.layer.folder, `${one.name}.squashfs`))),
    }));
    const artefacts: Artefacts = artefactsSchema.parse({
      kernel,
      inputs,
      files,
      packs,
      layers: await Promise.all(described),
      packages: {
        ...(await packageVersions(root)),
        ...(await packageVersions(join(from.debian.folder, 'root'))),
      },
    });
    await writeFile(join(folder, ARTEFACTS), `${JSON.stringify(artefacts, null, 2)}\n`);
  });
};

/** The first stage, then one archive for each squashfs: a change of the agent copies the others as they are. */
const makeInitrd = async (folder: string, from: Ingredients): Promise<void> => {
  const stage = join(folder, 'stage');
  await mkdir(join(stage, 'layers'), { recursive: true });
  const archives = [join(from.firstStage.folder, 'first-stage.cpio')];
  for (const [at, { name, layer: built }] of from.layers.entries()) {
    const path = `layers/${at}-${name}.squashfs`;
    await copyFile(join(built.folder, `${name}.squashfs`), join(stage, path));
    await makeCpio(stage, [path], join(stage, `${name}.cpio`));
    archives.push(join(stage, `${name}.cpio`));
  }
  await concatenate(archives, join(folder, 'initrd.img'));
  await rm(stage, { recursive: true });
};

/** Copy what was assembled to where others look for it, the description last. */
export const place = async (assembled: Layer, out: string): Promise<Artefacts> => {
  const artefacts = await readArtefacts(assembled.folder);
  if (!artefacts) throw new Error(`Cannot place the initramfs: ${assembled.folder} is empty`);
  const packs = Object.values(artefacts.packs).map(
    (pack) => [`packs/${pack.sha256}.squashfs`, pack] as const,
  );
  const files = [...Object.entries(artefacts.files), ...packs];
  const there = await readArtefacts(out).catch(() => null);
  const unchanged = there?.inputs === artefacts.inputs;
  // two builds may place the same at the same time
  const unfinished = `new-${randomUUID()}`;
  for (const [path, { size }] of files) {
    const to = join(out, path);
    if (unchanged && (await sizeOf(to)) === size) continue;
    await mkdir(dirname(to), { recursive: true });
    await copyFile(join(assembled.folder, path), `${to}.${unfinished}`);
    await rename(`${to}.${unfinished}`, to);
  }
  const wanted = new Set<string>(packs.map(([path]) => path));
  for (const name of await readdir(join(out, 'packs')).catch(() => [])) {
    if (!wanted.has(`packs/${name}`) && !name.includes('.new-')) await rm(join(out, 'packs', name));
  }
  if (!unchanged) {
    await copyFile(join(assembled.folder, ARTEFACTS), join(out, `${ARTEFACTS}.${unfinished}`));
    await rename(join(out, `${ARTEFACTS}.${unfinished}`), join(out, ARTEFACTS));
  }
  return artefacts;
};

const sizeOf = async (path: string): Promise<number | null> =>
  stat(path).then(
    ({ size }) => size,
    () => null,
  );
