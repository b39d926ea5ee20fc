import { mountWritable } from '../disk/mount-writable.ts';
import { ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';
import { readBtrfsLayout } from './btrfs-layout.ts';
import { smallestBtrfs } from './btrfs-minimum.ts';
import { deviceSize } from './device-size.ts';
import { totalLength, uniteViews } from './extents.ts';
import type { FilesystemDriver } from './filesystem.ts';
import { partcloneMap } from './partclone-map.ts';
import { dirty, distrusted } from './verdicts.ts';

/** a full check of a large, slow disk */
const CHECK_MS = 4 * 60 * 60_000;
const MIB = 1024 * 1024;

/** btrfs on one device: btrfs-progs and partclone.btrfs. It grows mounted. */
export const btrfs: FilesystemDriver = {
  types: ['btrfs'],
  growable: true,

  check: async (device, signal) => {
    const superblock = await readSuperblock(device, signal);
    refuseUnknown(device, superblock);
    if (superblock.logRoot !== 0)
      throw dirty(device, 'its log tree was not replayed; start the system and shut it down');
    await checkReadOnly(device, signal);
  },

  usage: async (device, size, signal) => {
    const superblock = await readSuperblock(device, signal);
    refuseUnknown(device, superblock);
    const { nodeSize, bytesUsed, totalBytes } = superblock;
    if (totalBytes > size) throw distrusted(device, `it has ${totalBytes} bytes on a device of ${size}`);
    const { first, all, allocated, lengths } = await readBtrfsLayout(device, size, nodeSize, signal);
    // the superblock counts each extent once
    if (Math.abs(totalLength(first) - bytesUsed) > 16 * nodeSize) {
      throw distrusted(
        device,
        `its extent tree has ${totalLength(first)} bytes in use, its superblock ${bytesUsed}`,
      );
    }
    const map = await partcloneMap('btrfs', device, size, signal);
    const other = { name: 'the extent tree', extents: first, tolerance: 16 * nodeSize };
    const united = uniteViews(device, map.extents, other, size);
    // second copies of DUP, which partclone before 0.3.38 leaves out, and the superblock's
    const extents = uniteViews(device, united, { ...other, extents: all, tolerance: size }, size);
    const contents = {
      ...{ used: totalLength(all), once: totalLength(first), allocated, lengths },
      // a file's extent may have the same length: then this is a little too much
      metadata: (lengths.get(nodeSize) ?? 0) * nodeSize,
    };
    return { extents, minimumBytes: smallestBtrfs(contents, totalBytes) };
  },

  grow: async (device, signal) => {
    const { deviceId } = await readSuperblock(device, signal);
    {
      await using mount = await mountWritable(device, 'btrfs', { signal });
      await run('btrfs', ['filesystem', 'resize', `${deviceId}:max`, mount.path], {
        signal,
        timeoutMs: CHECK_MS,
      });
    }
    // or the kernel goes on knowing this filesystem by a device that is about to be replaced
    await run('btrfs', ['device', 'scan', '--forget', device], { signal });
    await checkReadOnly(device, signal);
    const { totalBytes } = await readSuperblock(device, signal);
    const size = await deviceSize(device, signal);
    if (size - totalBytes > MIB) {
      throw new ImagingError(
        'FILESYSTEM_CHECK_FAILED',
        `Cannot grow ${device}: the filesystem has ${totalBytes} bytes of ${size}`,
      );
    }
  },
};

export interface BtrfsSuperblock {
  /** address of the log tree; 0: there is nothing to replay */
  logRoot: number;
  totalBytes: number;
  bytesUsed: number;
  nodeSize: number;
  devices: number;
  deviceId: number;
  seeding: boolean;
  incompatible: bigint;
  readOnlyCompatible: bigint;
}

/**
 * mixed backref, default subvolume, mixed groups, lzo, zstd, big metadata, extended iref, skinny metadata,
 * no-holes, metadata uuid. Not: RAID5/6, RAID1C34, zoned, extent tree v2, stripe tree, simple quota.
 * Linux, include/uapi/linux/btrfs.h.
 */
const KNOWN_INCOMPATIBLE = 0x77fn;
/** free space tree (and valid), verity, block group tree (partclone 0.3.23 fails on it, 0.3.36 does not) */
const KNOWN_READ_ONLY_COMPATIBLE = 0xfn;

const refuseUnknown = (device: string, superblock: BtrfsSuperblock): void => {
  const { devices, seeding, incompatible, readOnlyCompatible } = superblock;
  const reason =
    devices !== 1
      ? `it spans ${devices} devices`
      : seeding
        ? 'it is a seed for others'
        : incompatible & ~KNOWN_INCOMPATIBLE || readOnlyCompatible & ~KNOWN_READ_ONLY_COMPATIBLE
          ? `it has features that are not known here (incompat 0x${incompatible.toString(16)}, compat_ro 0x${readOnlyCompatible.toString(16)})`
          : null;
  if (reason) throw distrusted(device, reason);
};

const readSuperblock = async (device: string, signal: AbortSignal): Promise<BtrfsSuperblock> => {
  const { stdout } = await run('btrfs', ['inspect-internal', 'dump-super', device], { signal });
  return parseBtrfsSuperblock(stdout);
};

/**
 * `btrfs inspect-internal dump-super`. A field that is there twice comes from a label with line ends.
 *
 * @throws ImagingError TOOL_FAILED, FILESYSTEM_CHECK_FAILED: its checksum is wrong
 */
export const parseBtrfsSuperblock = (text: string): BtrfsSuperblock => {
  const field = (name: string): string => {
    const found = [...text.matchAll(new RegExp(`^${name.replace('.', '\\.')}\\t+(\\S+)`, 'gm'))];
    const value = found[0]?.[1];
    if (value !== undefined && found.length === 1) return value;
    throw new ImagingError('TOOL_FAILED', `Cannot read btrfs dump-super: ${found.length} times "${name}"`);
  };
  if (!/^csum\t+0x[0-9a-f]+ \[match\]/m.test(text)) {
    throw new ImagingError('FILESYSTEM_CHECK_FAILED', "Cannot trust this btrfs: its superblock's checksum");
  }
  return {
    logRoot: Number(field('log_root')),
    totalBytes: Number(field('dev_item.total_bytes')),
    bytesUsed: Number(field('bytes_used')),
    nodeSize: Number(field('nodesize')),
    devices: Number(field('num_devices')),
    deviceId: Number(field('dev_item.devid')),
    seeding: (BigInt(field('flags')) & SEEDING) !== 0n,
    incompatible: BigInt(field('incompat_flags')),
    readOnlyCompatible: BigInt(field('compat_ro_flags')),
  };
};

/** BTRFS_SUPER_FLAG_SEEDING */
const SEEDING = 1n << 32n;

/** Exit code 0 is "no errors". It reads every tree, not the data. */
const checkReadOnly = async (device: string, signal: AbortSignal): Promise<void> => {
  const { exitCode, stdout, stderr } = await run('btrfs', ['check', '--readonly', device], {
    signal,
    timeoutMs: CHECK_MS,
    okExitCodes: [0, 1],
  });
  if (exitCode === 0 && /no error found/.test(stdout + stderr)) return;
  throw new ImagingError('FILESYSTEM_CHECK_FAILED', `Cannot trust ${device}: btrfs check found damage`, {
    details: { device, exitCode, output: (stdout + stderr).slice(-2000) },
  });
};
