import { mountWritable } from '../disk/mount-writable.ts';
import { ImagingError } from '../errors.ts';
import type { Extent } from '../image/extent.ts';
import { run } from '../process/run.ts';
import { deviceSize } from './device-size.ts';
import { invertExtents, totalLength, uniteViews } from './extents.ts';
import type { FilesystemDriver } from './filesystem.ts';
import { partcloneMap } from './partclone-map.ts';
import { damaged, dirty, distrusted } from './verdicts.ts';

/** a full check of a large, slow disk */
const CHECK_MS = 4 * 60 * 60_000;
const MIB = 1024 * 1024;

/** XFS: xfsprogs and partclone.xfs. It can grow (mounted) and never shrink. */
export const xfs: FilesystemDriver = {
  types: ['xfs'],
  growable: true,

  check: async (device, signal) => {
    refuseUnknown(device, await readSuperblock(device, signal));
    await checkLog(device, signal);
    await repairDry(device, signal);
  },

  usage: async (device, size, signal) => {
    const superblock = await readSuperblock(device, signal);
    refuseUnknown(device, superblock);
    const { blockSize, blocks } = superblock;
    const map = await partcloneMap('xfs', device, size, signal);
    const free = await readFreeSpace(device, superblock, signal);
    // xfs_db and the superblock count the same free blocks, but for a few an allocation group
    const uncounted = Math.abs(totalLength(free) / blockSize - superblock.freeBlocks);
    if (uncounted > 64 * superblock.groups + superblock.freeBlocks / 1000) {
      throw distrusted(
        device,
        `xfs_db lists ${totalLength(free)} bytes as free, not what the superblock says`,
      );
    }
    const other = {
      name: 'xfs_db',
      extents: invertExtents(free, blocks * blockSize),
      tolerance: 16 * superblock.groups * blockSize,
    };
    return {
      extents: uniteViews(device, map.extents, other, size),
      minimumBytes: blocks * blockSize,
    };
  },

  grow: async (device, signal) => {
    {
      await using mount = await mountWritable(device, 'xfs', { signal });
      await run('xfs_growfs', ['-d', mount.path], { signal, timeoutMs: CHECK_MS });
    }
    await checkLog(device, signal);
    await repairDry(device, signal);
    const { blocks, blockSize } = await readSuperblock(device, signal);
    const size = await deviceSize(device, signal);
    // a last allocation group of less than 64 blocks is left out
    if (size - blocks * blockSize > Math.max(MIB, 64 * blockSize)) {
      throw new ImagingError(
        'FILESYSTEM_CHECK_FAILED',
        `Cannot grow ${device}: the filesystem has ${blocks * blockSize} bytes of ${size}`,
      );
    }
  },
};

export interface XfsSuperblock {
  blockSize: number;
  blocks: number;
  freeBlocks: number;
  groups: number;
  /** blocks of every allocation group but the last */
  groupBlocks: number;
  /** blocks of a realtime section on another device */
  realtimeBlocks: number;
  /** block of the log; 0: it is on another device */
  logStart: number;
  incompatible: number;
  readOnlyCompatible: number;
}

/**
 * ftype, sparse inodes, meta_uuid, bigtime, nrext64, exchange-range, parent: not needsrepair (0x10), nor
 * metadir and zoned (0x100 and above), which come with a realtime section. Linux, xfs_format.h.
 */
const KNOWN_INCOMPATIBLE = 0xef;
/** finobt, rmapbt, reflink, inobtcount */
const KNOWN_READ_ONLY_COMPATIBLE = 0x0f;

const refuseUnknown = (device: string, superblock: XfsSuperblock): void => {
  const reason =
    superblock.realtimeBlocks > 0
      ? 'it has a realtime section on another device'
      : superblock.logStart === 0
        ? 'its log is on another device'
        : superblock.incompatible & ~KNOWN_INCOMPATIBLE ||
            superblock.readOnlyCompatible & ~KNOWN_READ_ONLY_COMPATIBLE
          ? `it has features that are not known here (incompat ${superblock.incompatible}, ro_compat ${superblock.readOnlyCompatible})`
          : null;
  if (reason) throw distrusted(device, reason);
};

const readSuperblock = async (device: string, signal: AbortSignal): Promise<XfsSuperblock> => {
  const { stdout } = await run('xfs_db', ['-r', '-c', 'sb 0', '-c', 'print', device], { signal });
  return parseXfsSuperblock(stdout);
};

/** @throws ImagingError TOOL_FAILED */
export const parseXfsSuperblock = (text: string): XfsSuperblock => {
  const number = (name: string, otherwise?: number): number => {
    const value = Number(new RegExp(`^${name} = (0x[0-9a-f]+|\\d+)$`, 'm').exec(text)?.[1] ?? otherwise);
    if (Number.isSafeInteger(value)) return value;
    throw new ImagingError('TOOL_FAILED', `Cannot read xfs_db: no "${name}"`);
  };
  return {
    blockSize: number('blocksize'),
    blocks: number('dblocks'),
    freeBlocks: number('fdblocks'),
    groups: number('agcount'),
    groupBlocks: number('agblocks'),
    realtimeBlocks: number('rblocks'),
    logStart: number('logstart'),
    // version 4 has no such fields
    incompatible: number('features_incompat', 0),
    readOnlyCompatible: number('features_ro_compat', 0),
  };
};

const checkLog = async (device: string, signal: AbortSignal): Promise<void> => {
  const { stdout, stderr, exitCode } = await run('xfs_logprint', ['-t', device], {
    signal,
    timeoutMs: CHECK_MS,
    okExitCodes: [0, 1],
  });
  const state = parseLogState(stdout);
  if (state === 'clean') return;
  if (state === 'dirty') throw dirty(device, 'its log was not replayed; start the system and shut it down');
  throw damaged(device, 'xfs_logprint cannot read its log', {
    exitCode,
    output: (stdout + stderr).slice(-2000),
  });
};

/** `xfs_logprint -t`; null where it says neither. */
export const parseLogState = (stdout: string): 'clean' | 'dirty' | null => {
  const state = /log tail: \d+ head: \d+ state: <(CLEAN|DIRTY)>/.exec(stdout)?.[1];
  return state === undefined ? null : state === 'CLEAN' ? 'clean' : 'dirty';
};

/** xfs_repair(8): with -n, exit code 1 is "corruption was detected". */
const repairDry = async (device: string, signal: AbortSignal): Promise<void> => {
  const { exitCode, stdout, stderr } = await run('xfs_repair', ['-n', device], {
    signal,
    timeoutMs: CHECK_MS,
    okExitCodes: [0, 1, 2],
  });
  const said = stdout + stderr;
  if (/valuable metadata changes in a log/.test(said))
    throw dirty(device, 'its log was not replayed; start the system and shut it down');
  if (exitCode === 0 && /No modify flag set, skipping filesystem flush and exiting/.test(said)) return;
  throw damaged(device, 'xfs_repair found damage', { exitCode, output: said.slice(-2000) });
};

/** Free extents from the filesystem's own free space trees. Bytes. */
const readFreeSpace = async (
  device: string,
  { blockSize, groupBlocks }: XfsSuperblock,
  signal: AbortSignal,
): Promise<Extent[]> => {
  const free: Extent[] = [];
  await run('xfs_db', ['-r', '-c', 'freesp -d', device], {
    signal,
    timeoutMs: CHECK_MS,
    keepOutput: false,
    onLine: (line, from) => {
      const extent = from === 'stdout' ? parseFreeExtent(line) : null;
      if (!extent) return;
      const block = extent.group * groupBlocks + extent.block;
      free.push({ offset: block * blockSize, length: extent.blocks * blockSize });
    },
  });
  return free;
};

/** A line of `freesp -d` (group, first block, blocks); the histogram behind the list has five columns. */
export const parseFreeExtent = (line: string): { group: number; block: number; blocks: number } | null => {
  const [, group, block, blocks] = /^\s*(\d+)\s+(\d+)\s+(\d+)\s*$/.exec(line) ?? [];
  return group && block && blocks
    ? { group: Number(group), block: Number(block), blocks: Number(blocks) }
    : null;
};
