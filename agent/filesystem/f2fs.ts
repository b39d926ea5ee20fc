import { run } from '../process/run.ts';
import { deviceSize } from './device-size.ts';
import { totalLength, uniteExtents } from './extents.ts';
import {
  F2FS_BLOCK,
  type F2fsSuperblock,
  needsCheck,
  readF2fsCheckpoint,
  readF2fsSuperblock,
  wasUnmounted,
} from './f2fs-superblock.ts';
import type { FilesystemDriver } from './filesystem.ts';
import { partcloneMap } from './partclone-map.ts';
import { damaged, dirty, distrusted } from './verdicts.ts';

/** a full check of a large, slow disk */
const CHECK_MS = 4 * 60 * 60_000;

/** F2FS on one device: f2fs-tools and partclone.f2fs. It grows offline and is never shrunk. */
export const f2fs: FilesystemDriver = {
  types: ['f2fs'],
  growable: true,

  check: async (device, signal) => {
    const superblock = await readF2fsSuperblock(device);
    refuseUnknown(device, superblock);
    const checkpoint = await readF2fsCheckpoint(device, superblock);
    // without it, files may have been synchronised behind the last checkpoint
    if (!wasUnmounted(checkpoint))
      throw dirty(device, 'it was not unmounted cleanly; start the system and shut it down');
    if (needsCheck(checkpoint)) throw damaged(device, 'it asks for fsck.f2fs', {});
    await checkReadOnly(device, signal);
  },

  usage: async (device, size, signal) => {
    const superblock = await readF2fsSuperblock(device);
    refuseUnknown(device, superblock);
    const { blocks, mainBlock } = superblock;
    const { validBlocks } = await readF2fsCheckpoint(device, superblock);
    const map = await partcloneMap('f2fs', device, size, signal, { countsMore: true });
    // superblocks, both checkpoints, and the tables of segments and nodes
    const fixed = { offset: 0, length: mainBlock * F2FS_BLOCK };
    const extents = uniteExtents([...map.extents, fixed], size);
    const main = (totalLength(extents) - fixed.length) / F2FS_BLOCK;
    // the checkpoint also counts blocks that are only promised to a file (fallocate) and lie nowhere
    if (main !== validBlocks && main !== (await countSegmentBlocks(device, signal))) {
      throw distrusted(device, `partclone lists ${main} blocks in use, the checkpoint ${validBlocks}`);
    }
    return { extents, minimumBytes: blocks * F2FS_BLOCK };
  },

  grow: async (device, signal) => {
    await run('resize.f2fs', [device], { signal, timeoutMs: CHECK_MS });
    // not its checkpoints: resize.f2fs writes one, and the other comes with the first mount
    await checkReadOnly(device, signal);
    const superblock = await readF2fsSuperblock(device);
    const bytes = superblock.blocks * F2FS_BLOCK;
    const size = await deviceSize(device, signal);
    if (bytes > size || size - bytes > superblock.sectionBlocks * F2FS_BLOCK) {
      throw damaged(device, `after growing, the filesystem has ${bytes} bytes of ${size}`, {});
    }
  },
};

/** zoned devices and a device alias */
const REFUSED_FEATURES = 0x2 | 0x10000;

const refuseUnknown = (device: string, { severalDevices, features }: F2fsSuperblock): void => {
  if (severalDevices) throw distrusted(device, 'it spans several devices');
  if (features & REFUSED_FEATURES) throw distrusted(device, `its features (${features}) are not known here`);
};

/**
 * fsck.f2fs with --dry-run reads everything and writes nothing. Its exit code alone is no answer
 * (1.15 ends with 0 after damage that it lists), so every line of the summary must say Ok.
 */
const checkReadOnly = async (device: string, signal: AbortSignal): Promise<void> => {
  const { exitCode, stdout, stderr } = await run('fsck.f2fs', ['--dry-run', device], {
    signal,
    timeoutMs: CHECK_MS,
    okExitCodes: [0, 1, 2, 4, 8, 255],
  });
  if (exitCode === 0 && isF2fsSound(stdout + stderr)) return;
  throw damaged(device, 'fsck.f2fs found damage', { exitCode, output: (stdout + stderr).slice(-2000) });
};

/** Blocks in use by the segment information, which fsck.f2fs counts before it looks at any file. */
const countSegmentBlocks = async (device: string, signal: AbortSignal): Promise<number | null> => {
  let blocks: number | null = null;
  await run('fsck.f2fs', ['--dry-run', '-d', '1', device], {
    signal,
    timeoutMs: CHECK_MS,
    keepOutput: false,
    onLine: (line) => {
      blocks ??= parseSegmentBlocks(line);
    },
  });
  return blocks;
};

export const parseSegmentBlocks = (line: string): number | null => {
  const blocks = /^\[build_sit_area_bitmap: *\d+\] Blocks \[0x *[0-9a-f]+ : (\d+)\]/.exec(line)?.[1];
  return blocks === undefined ? null : Number(blocks);
};

/** The lines that end a check of fsck.f2fs 1.15 and 1.16; damage before them is marked, too. */
export const isF2fsSound = (output: string): boolean => {
  if (/\[Fail\]|^\[ASSERT\]|\[ERROR\]|\bcorrupted?\b(?! bugs)/im.test(output)) return false;
  return SUMMARY.every((name) => new RegExp(`^\\[FSCK\\] ${name} .*\\[Ok\\.\\.\\]`, 'm').test(output));
};

const SUMMARY = [
  'Unreachable nat entries',
  'SIT valid block bitmap checking',
  'Hard link checking for regular file',
  'valid_block_count match(?:ing|ed) with CP',
  'valid_node_count match(?:ing|ed) with CP \\(de lookup\\)',
  'valid_node_count match(?:ing|ed) with CP \\(nat lookup\\)',
  'valid_inode_count match(?:ing|ed) with CP',
  'free segment_count match(?:ing|ed) with CP',
  'next block offset is free',
  'other corrupted bugs',
];
