import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { driverFor } from '../../agent/filesystem/index.ts';
import { run } from '../../agent/process/run.ts';
import type { ContainedVolume } from '../../agent/protocol/index.ts';
import { inspectVolumes } from '../../agent/volumes/inspect.ts';
import { readVolume } from '../../agent/volumes/lvm/read.ts';
import { floorsOf, smallestMember } from '../../agent/volumes/lvm/shrink-plan.ts';
import { attachLoop } from './loop-device.ts';
import { lvm, placesOf } from './lvm.ts';
import { MIB, type Part, sparseFile, withLoop } from './shrink-helpers.ts';

const { signal } = new AbortController();
export const SWAP = '0b8bd0c5-1a2f-4f5e-9c55-8b6d2c1e0f11';

export interface Group {
  part: Part;
  /** node of the physical volume */
  device: string;
  /** every volume's content in a file of its own, by name */
  files: Record<string, string>;
}

/**
 * `vg`: swap, wide (ext4 in two pieces with others between), noise (no filesystem) and root (ext4, a system), as
 * lvm2 makes them, and what a capture finds in them. `areas`: copies of the metadata, the second at the end.
 */
export const makeGroup = async (
  t: ExecutionContext,
  folder: string,
  tree: string,
  { areas = 1 } = {},
): Promise<Group> => {
  const size = 1000 * MIB;
  const { path, file } = await attachLoop(t, size);
  await lvm([path], 'pvcreate', ['-q', '--metadatacopies', String(areas), path]);
  await lvm([path], 'vgcreate', ['-q', 'vg', path]);
  const sizes = { swap: 16, wide: 200, noise: 12, root: 500 };
  for (const [name, mib] of Object.entries(sizes)) {
    const extents = String((name === 'wide' ? mib / 2 : mib) / 4);
    await lvm([path], 'lvcreate', ['-q', '-an', '-Zn', '-Wn', '-n', name, '-l', extents, 'vg']);
  }
  await lvm([path], 'lvextend', ['-q', '-L', '200M', 'vg/wide']);

  const files: Record<string, string> = {};
  for (const [name, mib] of Object.entries(sizes)) {
    files[name] = await sparseFile(join(folder, `${name}.img`), mib * MIB);
  }
  const [swap = '', wide = '', noise = '', root = ''] = Object.values(files);
  await run('mkswap', ['--uuid', SWAP, swap]);
  await writeFile(noise, randomBytes(12 * MIB));
  for (const ext of [wide, root]) {
    await run('mkfs.ext4', ['-q', '-F', ext]);
    await withLoop(ext, folder, async (mount) => {
      await run('cp', ['-r', `${tree}/.`, mount]);
      if (ext === root) await run('sh', ['-c', 'mkdir $0/etc; echo NAME=Debian > $0/etc/os-release', mount]);
    });
  }
  const places = await placesOf([path]);
  for (const [name, from] of Object.entries(files)) {
    let done = 0;
    for (const { offset, length } of places.get(name) ?? []) {
      const range = [`skip=${done / MIB}`, `seek=${offset / MIB}`, `count=${length / MIB}`];
      await run('dd', [`if=${from}`, `of=${path}`, 'bs=1M', 'conv=notrunc,sparse', 'status=none', ...range]);
      done += length;
    }
  }
  await run('blockdev', ['--flushbufs', path]);
  return { part: await lookAt(path, file, size, wide), device: path, files };
};

/**
 * By the code of a capture. To look into a volume of two pieces it needs device-mapper, which not every machine
 * that tests has: what it would find there is the volume's own file's.
 */
const lookAt = async (device: string, file: string, size: number, wide: string): Promise<Part> => {
  const options = { signal, keys: [], raw: false, replay: false };
  const [look] = await inspectVolumes([{ device, size, name: 'p1', partition: true }], options);
  const { label, group, headers } = await readVolume(device, size);
  if (!look || !group) throw new Error('no group');
  const found = await driverFor('ext4')?.usage(wide, 200 * MIB, signal);
  const facts = {
    type: 'ext4',
    uuid: '',
    label: '',
    usedBytes: null,
    minimumBytes: found?.minimumBytes ?? null,
  };
  const contains = look.contains.map(
    (one): ContainedVolume =>
      one.name === 'vg/wide' ? { ...one, method: 'used', reason: '', filesystem: facts } : one,
  );
  const minimumBytes = smallestMember({ label, group, headers }, floorsOf(contains));
  return {
    ...{ file, type: 'LVM2_member', size, role: 'os', minimumBytes },
    look: { extents: look.extents, contains },
  };
};
