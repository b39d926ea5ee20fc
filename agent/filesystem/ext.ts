import { ImagingError } from '../errors.ts';
import type { Extent } from '../image/extent.ts';
import { run } from '../process/run.ts';
import { deviceSize } from './device-size.ts';
import { invertExtents, totalLength, uniteViews } from './extents.ts';
import type { FilesystemDriver } from './filesystem.ts';
import { partcloneMap } from './partclone-map.ts';
import { distrusted } from './verdicts.ts';

/** a full check of a large, slow disk */
const CHECK_MS = 4 * 60 * 60_000;
const MIB = 1024 * 1024;

/** ext2, ext3, ext4: e2fsprogs and partclone.extfs. */
export const ext: FilesystemDriver = {
  types: ['ext2', 'ext3', 'ext4'],
  growable: true,

  check: async (device, signal) => {
    const { features, state } = await readSuperblock(device, signal);
    // partclone 0.3.23 does not see a journal that waits to be replayed
    const unfinished = ['needs_recovery', 'orphan_present'].find((feature) => features.includes(feature));
    if (unfinished || !state.startsWith('clean')) {
      throw new ImagingError(
        'FILESYSTEM_DIRTY',
        `Cannot capture ${device}: its filesystem was not unmounted cleanly (${unfinished ?? state}); start the system and shut it down`,
        { details: { device, state, features } },
      );
    }
    await checkReadOnly(device, signal);
  },

  usage: async (device, size, signal) => {
    const superblock = await readSuperblock(device, signal);
    refuseUnknown(device, superblock);
    const { blockSize, blocks, freeBlocks } = superblock;
    const map = await partcloneMap('extfs', device, size, signal);
    const free = await readFreeSpace(device, blockSize, signal);
    const extents = uniteViews(
      device,
      map.extents,
      {
        name: 'dumpe2fs',
        extents: invertExtents(free, blocks * blockSize),
        tolerance: 16 * blockSize,
      },
      size,
    );
    const counted = (blocks - freeBlocks) * blockSize;
    if (totalLength(extents) < counted - 16 * blockSize) {
      throw distrusted(device, `${totalLength(extents)} bytes are in use, its superblock counts ${counted}`);
    }
    return { extents, minimumBytes: await readMinimum(device, blockSize, signal) };
  },

  grow: async (device, signal) => {
    // resize2fs insists on a full check just before; 1 is "corrected"
    await run('e2fsck', ['-f', '-p', device], { signal, timeoutMs: CHECK_MS, okExitCodes: [0, 1] });
    await run('resize2fs', [device], { signal, timeoutMs: CHECK_MS });
    await checkReadOnly(device, signal);
    const { blockSize, blocks } = await readSuperblock(device, signal);
    const size = await deviceSize(device, signal);
    // a last block group too small for its own metadata is left out
    if (size - blocks * blockSize > Math.max(4 * MIB, size / 100)) {
      throw new ImagingError(
        'FILESYSTEM_CHECK_FAILED',
        `Cannot grow ${device}: the filesystem has ${blocks * blockSize} bytes of ${size}`,
      );
    }
  },
};

/** Clusters of several blocks, data shared by files, a device that only holds a journal. */
const REFUSED_FEATURES = ['bigalloc', 'shared_blocks', 'journal_dev'];

const refuseUnknown = (device: string, { features, externalJournal }: ExtSuperblock): void => {
  const refused = REFUSED_FEATURES.find((feature) => features.includes(feature));
  if (refused) throw distrusted(device, `partclone does not know its feature ${refused}`);
  if (externalJournal) throw distrusted(device, 'its journal is on another device');
};

/** Exit code 0 is "no errors"; a damaged filesystem that -n may not touch ends with 4. */
const checkReadOnly = async (device: string, signal: AbortSignal): Promise<void> => {
  const { exitCode, stdout, stderr } = await run('e2fsck', ['-f', '-n', device], {
    signal,
    timeoutMs: CHECK_MS,
    okExitCodes: [0, 4, 8, 12],
  });
  if (exitCode === 0) return;
  throw new ImagingError('FILESYSTEM_CHECK_FAILED', `Cannot trust ${device}: e2fsck found damage`, {
    details: { device, exitCode, output: (stdout + stderr).slice(-2000) },
  });
};

export interface ExtSuperblock {
  features: string[];
  state: string;
  blockSize: number;
  blocks: number;
  freeBlocks: number;
  externalJournal: boolean;
}

const readSuperblock = async (device: string, signal: AbortSignal): Promise<ExtSuperblock> => {
  const { stdout } = await run('dumpe2fs', ['-h', device], { signal });
  return parseDumpe2fs(stdout);
};

/** @throws ImagingError TOOL_FAILED */
export const parseDumpe2fs = (text: string): ExtSuperblock => {
  const field = (name: string): string => {
    const value = new RegExp(`^${name}:\\s+(.*)$`, 'm').exec(text)?.[1];
    if (value === undefined) throw new ImagingError('TOOL_FAILED', `Cannot read dumpe2fs: no "${name}"`);
    return value.trim();
  };
  return {
    features: field('Filesystem features').split(/\s+/),
    state: field('Filesystem state'),
    blockSize: Number(field('Block size')),
    blocks: Number(field('Block count')),
    freeBlocks: Number(field('Free blocks')),
    externalJournal:
      /^Filesystem features:.*\bhas_journal\b/m.test(text) && !/^Journal inode:\s+[1-9]/m.test(text),
  };
};

/** Free extents from the block bitmaps. Bytes. */
const readFreeSpace = async (device: string, blockSize: number, signal: AbortSignal): Promise<Extent[]> => {
  const free: Extent[] = [];
  await run('dumpe2fs', [device], {
    signal,
    timeoutMs: CHECK_MS,
    keepOutput: false,
    onLine: (line, from) => {
      if (from === 'stdout') free.push(...parseFreeBlocks(line, blockSize));
    },
  });
  return free;
};

/** A group's line of dumpe2fs ("  Free blocks: 518-1024, 2048"), indented; the superblock's is a count. */
export const parseFreeBlocks = (line: string, blockSize: number): Extent[] => {
  const list = /^ {2}Free blocks: ([\d, -]+)$/.exec(line)?.[1];
  if (list === undefined) return [];
  return list.split(', ').map((range) => {
    const [first = 0, last = first] = range.split('-').map(Number);
    return { offset: first * blockSize, length: (last - first + 1) * blockSize };
  });
};

/** `resize2fs -P` estimates without writing; where it cannot, nobody can. */
const readMinimum = async (
  device: string,
  blockSize: number,
  signal: AbortSignal,
): Promise<number | null> => {
  const { stdout } = await run('resize2fs', ['-P', device], {
    signal,
    timeoutMs: CHECK_MS,
    okExitCodes: [0, 1],
  });
  const blocks = /minimum size of the filesystem: (\d+)/.exec(stdout)?.[1];
  return blocks === undefined ? null : Number(blocks) * blockSize;
};
