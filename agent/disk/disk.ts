import { z } from 'zod';
import { hasCode, ImagingError } from '../errors.ts';
import { probe } from '../filesystem/probe.ts';
import { run } from '../process/run.ts';
import { type DiskFacts, machineTextSchema } from '../protocol/index.ts';
import { readNumber, readSysfsDisk, type SysfsDisk, sysfsOf } from './sysfs.ts';

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
  /** skipped only because it belongs to a RAID set: a wipe may take it all the same */
  raidMember?: true;
  /** libblkid's name of what lies on the disk as a whole, where it is no partition table */
  content?: string;
};

export interface ListDisksOptions {
  /** loop devices count as disks: for tests on files only */
  includeLoop?: boolean;
  signal?: AbortSignal;
}

/**
 * Every block device that stands by itself, those that can never be a target with the reason in
 * `skipped`. Read-only.
 *
 * `readOnly` means the hardware, as far as that can be told before a claim: the kernel's flag is set
 * on all disks by our own udev rule.
 *
 * @throws ImagingError TOOL_MISSING, TOOL_FAILED (lsblk), TASK_CANCELLED
 */
export const listDisks = async (options: ListDisksOptions = {}): Promise<Disk[]> => {
  const { stdout } = await run(
    'lsblk',
    ['--json', '--bytes', '--tree', '--output', columns.join(',')],
    options.signal ? { signal: options.signal } : {},
  );
  return await Promise.all(
    parseLsblk(stdout).map(async (node) => {
      const contents = new Map<string, Content>();
      const disk = toDisk(node, await readSysfsDisk(node.kname), contents, options.includeLoop === true);
      if (disk.skipped) return disk;
      for (const { kname, path } of [node, ...node.children]) {
        const number = await readNumber(sysfsOf(kname), 'partition');
        contents.set(kname, { number, ...(await look(path, options.signal)) });
      }
      return toDisk(node, await readSysfsDisk(node.kname), contents, options.includeLoop === true);
    }),
  );
};

/** What a disk or partition is found to be; lsblk itself only knows what udev has written down. */
export interface Content {
  /** null for a whole disk */
  number: number | null;
  type: string;
  label: string;
}

/** A device that cannot be read is listed all the same: its table and capture will say what is wrong. */
const look = async (
  path: string,
  signal: AbortSignal | undefined,
): Promise<{ type: string; label: string }> => {
  try {
    return await probe(path, signal ? { signal } : {});
  } catch (error) {
    if (hasCode(error, 'TOOL_FAILED') || hasCode(error, 'TOOL_TIMEOUT')) return { type: '', label: '' };
    throw error;
  }
};

const columns = [
  ...['NAME', 'KNAME', 'PATH', 'TYPE', 'SIZE', 'MODEL', 'SERIAL', 'WWN', 'LOG-SEC', 'PHY-SEC', 'ROTA', 'RM'],
  ...['TRAN', 'START', 'MOUNTPOINTS'],
];

// util-linux 2.37 and older print booleans and numbers of some columns as text
const flagSchema = z.union([z.boolean(), z.enum(['0', '1']).transform((text) => text === '1')]);
const countSchema = z.coerce.number().int().nonnegative();
const textSchema = z
  .string()
  .nullish()
  .transform((text) => text?.trim() ?? '');

const nodeSchema = z.object({
  kname: z.string().min(1),
  path: z.string().startsWith('/'),
  type: z.string(),
  size: z.union([z.null().transform(() => 0), countSchema]),
  model: textSchema,
  serial: textSchema,
  wwn: textSchema,
  'log-sec': countSchema,
  'phy-sec': countSchema,
  rota: flagSchema,
  rm: flagSchema,
  tran: textSchema,
  /** in 512-byte sectors, whatever the disk's own are */
  start: z.union([z.null(), countSchema]).optional(),
  mountpoints: z
    .array(z.string().nullable())
    .nullish()
    .transform((paths) => (paths ?? []).filter((path) => path !== null)),
  get children() {
    return z.array(nodeSchema).default([]);
  },
});
export type LsblkNode = z.infer<typeof nodeSchema>;
const lsblkSchema = z.object({ blockdevices: z.array(nodeSchema) });

/** @throws ImagingError TOOL_FAILED: lsblk printed something else */
export const parseLsblk = (json: string): LsblkNode[] => {
  try {
    return lsblkSchema.parse(JSON.parse(json)).blockdevices;
  } catch (cause) {
    throw new ImagingError('TOOL_FAILED', 'Cannot list disks: lsblk printed something unexpected', { cause });
  }
};

/** One top-level device of lsblk's tree as a disk. `contents` by kernel name. Pure. */
export const toDisk = (
  node: LsblkNode,
  sysfs: SysfsDisk,
  contents: ReadonlyMap<string, Content>,
  includeLoop = false,
): Disk => {
  const content = contents.get(node.kname)?.type ?? '';
  const skipped = whySkipped(node, includeLoop) ?? whyRaidMember(content);
  const named = whyOnlyWhenNamed(node, sysfs);
  const serial = machineTextSchema.parse(node.serial || sysfs.serial || '');
  const wwn = machineTextSchema.parse(node.wwn || sysfs.wwn || '');
  return {
    name: node.kname,
    path: node.path,
    ...(node.model ? { model: machineTextSchema.parse(node.model) } : {}),
    ...(serial ? { serial } : {}),
    ...(wwn ? { wwn } : {}),
    size: node.size,
    logicalSectorSize: node['log-sec'],
    physicalSectorSize: node['phy-sec'],
    rotational: node.rota,
    removable: node.rm || sysfs.card,
    readOnly: sysfs.hardwareReadOnly || node.type === 'rom',
    ...(node.tran ? { transport: node.tran } : {}),
    ...(skipped ? { skipped } : {}),
    ...(named ? { onlyWhenNamed: named } : {}),
    ...(skipped && skipped === whyRaidMember(content) ? { raidMember: true } : {}),
    ...(content ? { content } : {}),
    sequence: sysfs.sequence,
    mounts: mountsOf(node),
    partitions: node.children.flatMap((child) => {
      const content = contents.get(child.kname);
      if (!content || content.number === null) return [];
      const { number, type, label } = content;
      const start = (child.start ?? 0) * 512;
      return [{ path: child.path, number, start, size: child.size, filesystem: type, label }];
    }),
  };
};

const mountsOf = (node: LsblkNode): string[] => [...node.mountpoints, ...node.children.flatMap(mountsOf)];

/** Kernel names that lsblk calls `disk` and that nobody installs a system on. */
const notDisks: readonly [RegExp, string][] = [
  [/^zram/, 'compressed memory'],
  [/^ram/, 'memory'],
  [/^fd/, 'floppy drive'],
  [/^mmcblk\d+(boot|gp)\d+$/, 'hardware partition of an eMMC'],
  [/^mmcblk\d+rpmb$/, 'protected area of an eMMC'],
  [/^mtdblock/, 'flash chip'],
  [/^nbd/, 'network block device'],
];

const whySkipped = (node: LsblkNode, includeLoop: boolean): string | undefined => {
  if (node.type === 'loop') {
    if (!includeLoop) return 'loop device';
  } else if (node.type === 'rom') return 'optical drive';
  else if (node.type !== 'disk') return `${node.type} device`;
  const other = notDisks.find(([name]) => name.test(node.kname));
  if (other) return other[1];
  return node.size === 0 ? 'no medium' : undefined;
};

/** Writing to one member damages the set; firmware RAID shows members as plain disks. */
const whyRaidMember = (content: string): string | undefined =>
  /_raid_member$/.test(content) ? `member of a RAID set (${content})` : undefined;

const whyOnlyWhenNamed = (node: LsblkNode, sysfs: SysfsDisk): string | undefined => {
  if (node.tran === 'usb') return 'USB';
  if (sysfs.card) return 'memory card';
  if (node.rm) return 'removable';
  if (node.tran === 'fc' || node.tran === 'iscsi' || node.tran === 'fcoe') return 'storage network';
  return undefined;
};
