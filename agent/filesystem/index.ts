import { btrfs } from './btrfs.ts';
import { exfat } from './exfat.ts';
import { ext } from './ext.ts';
import { f2fs } from './f2fs.ts';
import { fat } from './fat.ts';
import type { FilesystemDriver } from './filesystem.ts';
import { ntfs } from './ntfs.ts';
import { swap } from './swap.ts';
import { xfs } from './xfs.ts';

const drivers: readonly FilesystemDriver[] = [ext, ntfs, xfs, btrfs, f2fs, fat, exfat, swap];

/** The driver for libblkid's name of a filesystem; null: the partition is kept raw. */
export const driverFor = (type: string): FilesystemDriver | null =>
  drivers.find(({ types }) => types.includes(type)) ?? null;
