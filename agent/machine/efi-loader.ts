import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno } from '../errors.ts';

/** What the firmware can start: its own width, not the processor's. */
export type EfiArch = 'x64' | 'ia32' | 'aa64';

/** Of the firmware that started this machine: tablets with a 64-bit processor may have one of 32 bits. */
export const firmwareArch = async (): Promise<EfiArch> => {
  if (process.arch === 'arm64') return 'aa64';
  try {
    return (await readFile('/sys/firmware/efi/fw_platform_size', 'utf8')).trim() === '32' ? 'ia32' : 'x64';
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return 'x64';
    throw error;
  }
};

/** Removable-media path of the UEFI specification (2.10, section 3.5.1.1): firmware starts it without any entry. */
export const fallbackLoader = (arch: EfiArch = 'x64'): string => `\\EFI\\BOOT\\BOOT${arch.toUpperCase()}.EFI`;

export interface Loaders {
  /** by preference */
  found: string[];
  fallback: boolean;
}

/**
 * Boot loaders on a mounted EFI system partition, best first. Where Linux's shim or GRUB stands beside
 * Windows' loader it comes first, because its menu offers both and Windows' does not. FAT names are
 * matched without regard to case and returned as they are written. Those of another firmware's width are none.
 */
export const findLoaders = async (folder: string, arch: EfiArch = 'x64'): Promise<Loaders> => {
  const files: string[] = [];
  const efi = (await names(folder)).find((name) => name.toLowerCase() === 'efi');
  if (efi) {
    for (const vendor of await names(join(folder, efi))) {
      for (const name of await names(join(folder, efi, vendor))) {
        files.push(`\\${efi}\\${vendor}\\${name}`);
        if (vendor.toLowerCase() !== 'microsoft' || name.toLowerCase() !== 'boot') continue;
        for (const file of await names(join(folder, efi, vendor, name))) {
          files.push(`\\${efi}\\${vendor}\\${name}\\${file}`);
        }
      }
    }
  }
  // names come sorted, so the choice between equals is always the same
  const found = preferences(arch).flatMap((pattern) => files.filter((file) => pattern.test(file)));
  const fallback = fallbackLoader(arch).toLowerCase();
  return { found: [...new Set(found)], fallback: files.some((file) => file.toLowerCase() === fallback) };
};

const preferences = (arch: EfiArch): readonly RegExp[] => [
  new RegExp(`^\\\\efi\\\\debian\\\\shim${arch}\\.efi$`, 'i'),
  new RegExp(`^\\\\efi\\\\(?!boot\\\\)[^\\\\]+\\\\shim${arch}\\.efi$`, 'i'),
  new RegExp(`^\\\\efi\\\\(?!boot\\\\)[^\\\\]+\\\\grub${arch}\\.efi$`, 'i'),
  new RegExp(`^\\\\efi\\\\systemd\\\\systemd-boot${arch}\\.efi$`, 'i'),
  // Windows' has one name for all of them, and a disk with it only starts where it was made for
  /^\\efi\\microsoft\\boot\\bootmgfw\.efi$/i,
  new RegExp(`^\\\\efi\\\\boot\\\\boot${arch}\\.efi$`, 'i'),
];

const names = async (folder: string): Promise<string[]> => {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if (isErrno(error, 'ENOTDIR') || isErrno(error, 'ENOENT')) return [];
    throw error;
  }
};
