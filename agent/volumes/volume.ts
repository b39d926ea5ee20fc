import type { Extent } from '../image/extent.ts';
import type { ContainedVolume, FilesystemFacts, Manifest, PartitionMethod } from '../protocol/index.ts';
import type { LookedAt } from './lvm/inspect.ts';
import type { Member } from './lvm/members.ts';

/** Something that holds a filesystem or other volumes: a partition, a logical volume, the clear side of LUKS. */
export interface Volume {
  /** node to look at; never written to, unless it is a snapshot's */
  device: string;
  /** bytes */
  size: number;
  /** for people: `p3`, `vg0/root` */
  name: string;
  /** a partition: a swap area is made anew there, not kept */
  partition: boolean;
}

/** What a volume was found to be, and how it is to be kept. */
export interface Look {
  filesystem: FilesystemFacts | null;
  method: PartitionMethod;
  /** why raw */
  reason: string;
  /** bytes to keep, from the volume's first byte */
  extents: Extent[];
  os: Manifest['os'];
  contains: ContainedVolume[];
  /** used blocks can be told once a journal in it has been replayed */
  dirty: boolean;
}

/** What all inspectors of one run share. */
export interface Inspection {
  signal: AbortSignal;
  /** passphrases, as the task brought them */
  keys: readonly string[];
  /** keep what cannot be opened, every block of it */
  raw: boolean;
  /** the devices are snapshots: journals are replayed */
  replay: boolean;
  /** LVM's physical volumes among all volumes looked at, by device */
  members: Map<string, Member>;
  /** volumes of each group, by its UUID: looked at once, whatever number of physical volumes it has */
  groups: Map<string, Promise<LookedAt[]>>;
  /** takes down what was opened to look inside */
  opened: AsyncDisposableStack;
  warn(text: string): void;
}

export const rawLook = (
  volume: Pick<Volume, 'size'>,
  filesystem: FilesystemFacts | null,
  reason: string,
  more: Partial<Pick<Look, 'os' | 'contains' | 'dirty'>> = {},
): Look => ({
  filesystem,
  method: 'raw',
  reason: reason.slice(0, 400),
  extents: [{ offset: 0, length: volume.size }],
  os: null,
  contains: [],
  dirty: false,
  ...more,
});
