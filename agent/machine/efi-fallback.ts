import { createHash } from 'node:crypto';
import { flushDevice } from '../disk/device-io.ts';
import { mountReadOnly } from '../disk/mount.ts';
import { mountWritable } from '../disk/mount-writable.ts';
import { ImagingError, isErrno } from '../errors.ts';
import { driverFor } from '../filesystem/index.ts';
import {
  kindInside,
  makeFolderInside,
  openTree,
  readInside,
  removeInside,
  type Tree,
  writeInside,
} from '../os/tree.ts';
import type { Evidence } from '../protocol/index.ts';
import { type EfiArch, fallbackLoader, findLoaders } from './efi-loader.ts';

export interface FallbackResult {
  evidence: Evidence[];
  warnings: string[];
}

const MAX_LOADER = 64 * 1024 * 1024;

interface Copy {
  /** paths on the ESP, with slashes */
  from: string;
  to: string;
}

/**
 * Give an EFI system partition the loader that firmware starts without a boot entry, where it has none:
 * the one that the boot entry will name, with what it loads from beside itself. What is there stays as it
 * is. The disk has no table yet; `device` is the partition's node.
 *
 * @throws ImagingError FILESYSTEM_CHECK_FAILED, READ_BACK_MISMATCH: the ESP is not as it must be afterwards
 */
export const placeFallbackLoader = async (
  device: string,
  arch: EfiArch,
  options: { signal: AbortSignal },
): Promise<FallbackResult> => {
  const { signal } = options;
  const name = fallbackLoader(arch);
  const copies = await neededCopies(device, arch, signal);
  if (copies.length === 0) return { evidence: [], warnings: [] };

  const mount = await mountWritable(device, 'vfat', { signal });
  const hashes = new Map<string, string>();
  let problem: string | null = null;
  try {
    await using tree = await openTree(mount.path, { ignoreCase: true });
    problem = await writeCopies(tree, copies, hashes);
  } finally {
    await mount[Symbol.asyncDispose]();
    await flushDevice(device);
  }
  await driverFor('vfat')?.check(device, signal);
  await assertWritten(device, hashes, signal);
  if (problem) return { evidence: [], warnings: [`Cannot place ${name}: ${problem}`] };
  const source = copies.at(-1)?.from ?? '';
  const made = [...hashes.keys()].map((path) => path.split('/').at(-1)).join(', ');
  return {
    evidence: [
      {
        what: 'fallback boot loader',
        proof: `${name} was missing: made from ${source} (${made}), read back`,
      },
    ],
    warnings: [],
  };
};

/** Null, or why it could not be done: then nothing of it stays. */
const writeCopies = async (
  tree: Tree,
  copies: readonly Copy[],
  hashes: Map<string, string>,
): Promise<string | null> => {
  try {
    if (!(await makeFolderInside(tree, 'EFI/BOOT'))) return 'something else stands at \\EFI\\BOOT';
    for (const { from, to } of copies) {
      if ((await kindInside(tree, to)) !== 'none') continue;
      const bytes = await readInside(tree, from, MAX_LOADER);
      if (bytes === null) continue;
      hashes.set(to, sha256(bytes));
      await writeInside(tree, to, bytes, 0o755);
    }
    return null;
  } catch (error) {
    if (!isErrno(error, 'ENOSPC')) throw error;
    for (const made of hashes.keys()) await removeInside(tree, made);
    hashes.clear();
    return 'the EFI system partition has no room for it';
  }
};

/** Nothing where the fallback is there, or where there is nothing to make it from (the boot entry says so). */
const neededCopies = async (device: string, arch: EfiArch, signal: AbortSignal): Promise<Copy[]> => {
  await using mounted = await mountReadOnly(device, 'vfat', { signal });
  const { found, fallback } = await findLoaders(mounted.path, arch);
  const loader = found[0];
  return fallback || !loader ? [] : copiesFor(loader, arch);
};

/**
 * What makes a fallback of a loader, the loader itself last, so that it is there only with all it needs.
 * shim loads GRUB and MokManager from beside itself. Not its fbx64.efi: started from \EFI\BOOT, that one
 * makes boot entries of its own and puts them before the network. Windows' and systemd's loaders, and
 * GRUB without shim, find the rest where it is. Pure.
 */
export const copiesFor = (loader: string, arch: EfiArch): Copy[] => {
  const from = loader.replaceAll('\\', '/').replace(/^\//, '');
  const folder = from.slice(0, from.lastIndexOf('/'));
  const beside = /\/shim[^/]*$/i.test(from) ? [`grub${arch}.efi`, `mm${arch}.efi`] : [];
  return [
    ...beside.map((name) => ({ from: `${folder}/${name}`, to: `EFI/BOOT/${name}` })),
    { from, to: fallbackLoader(arch).replaceAll('\\', '/').slice(1) },
  ];
};

const assertWritten = async (
  device: string,
  hashes: ReadonlyMap<string, string>,
  signal: AbortSignal,
): Promise<void> => {
  await using mounted = await mountReadOnly(device, 'vfat', { signal });
  await using tree = await openTree(mounted.path, { ignoreCase: true });
  for (const [path, hash] of hashes) {
    const bytes = await readInside(tree, path, MAX_LOADER);
    if (bytes !== null && sha256(bytes) === hash) continue;
    throw new ImagingError('READ_BACK_MISMATCH', `Cannot place ${path}: it reads back differently`, {
      details: { device, path },
    });
  }
};

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
