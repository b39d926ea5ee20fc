import type { DiskFacts } from '../protocol/index.ts';

/** What lies on a disk now, as the kernel sees it. Offsets and sizes in bytes. */
export interface DiskPartition {
  path: string;
  number: number;
  start: number;
  size: number;
  /** libblkid's name of the content, empty for none or unknown */
  filesystem: string;
  label: string;
}

/** A block device that could be a machine's disk. */
export type Disk = DiskFacts & {
  /** device node: /dev/sda. Valid until the next boot only. */
  path: string;
  /** the kernel's number of this very device since boot; changes when it is unplugged and back */
  sequence: number | null;
  partitions: DiskPartition[];
  /** where the disk, its partitions or anything built on them is mounted, or `[SWAP]` */
  mounts: string[];
  /** why the disk is taken only when a hint names it (USB, memory card) */
  onlyWhenNamed?: string;
};

export interface ListDisksOptions {
  /** loop devices count as disks: for tests on files only */
  includeLoop?: boolean;
  signal?: AbortSignal;
}
export declare const listDisks: (options?: ListDisksOptions) => Promise<Disk[]>;
