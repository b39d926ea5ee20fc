import { ext } from './ext.ts';
import { fat } from './fat.ts';
import type { FilesystemDriver } from './filesystem.ts';
import { ntfs } from './ntfs.ts';
import { swap } from './swap.ts';

const drivers: readonly FilesystemDriver[] = [ext, fat, ntfs, swap];

/** The driver for libblkid's name of a filesystem; null: the partition is kept raw. */
export const driverFor = (type: string): FilesystemDriver | null =>
  drivers.find(({ types }) => types.includes(type)) ?? null;
