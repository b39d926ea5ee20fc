import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno } from '../errors.ts';

/** Removable-media path of the UEFI specification (2.10, section 3.5.1.1): firmware starts it without any entry. */
export const FALLBACK_LOADER = '\\EFI\\BOOT\\BOOTX64.EFI';

export interface Loaders {
  /** by preference */
  found: string[];
  fallback: boolean;
}

/**
 * Boot loaders on a mounted EFI system partition, best first. Where Linux's shim or GRUB stands beside
 * Windows' loader it comes first, because its menu offers both and Windows' does not. FAT names are
 * matched without regard to case and returned as they are written.
 */
export const findLoaders = async (folder: string): Promise<Loaders> => {
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
  const found = preferences.flatMap((pattern) => files.filter((file) => pattern.test(file)));
  return { found: [...new Set(found)], fallback: files.some((file) => fallback.test(file)) };
};

const fallback = /^\\efi\\boot\\bootx64\.efi$/i;
const preferences: readonly RegExp[] = [
  /^\\efi\\debian\\shimx64\.efi$/i,
  /^\\efi\\(?!boot\\)[^\\]+\\shimx64\.efi$/i,
  /^\\efi\\(?!boot\\)[^\\]+\\grubx64\.efi$/i,
  /^\\efi\\systemd\\systemd-bootx64\.efi$/i,
  /^\\efi\\microsoft\\boot\\bootmgfw\.efi$/i,
  fallback,
];

const names = async (folder: string): Promise<string[]> => {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if (isErrno(error, 'ENOTDIR') || isErrno(error, 'ENOENT')) return [];
    throw error;
  }
};
