import type { FilesystemDriver } from './filesystem.ts';

/** The driver for libblkid's name of a filesystem; null: the partition is kept raw. */
export declare const driverFor: (type: string) => FilesystemDriver | null;
