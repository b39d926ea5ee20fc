import { crc32 } from 'node:zlib';
import { readAt } from '../disk/device-io.ts';
import { ImagingError } from '../errors.ts';

/** F2FS has one block size on the machines that we meet: 4096. */
export const F2FS_BLOCK = 4096;
const MAGIC = 0xf2f52010;
/** two copies, each 1 KiB into its block */
const COPIES = [1024, F2FS_BLOCK + 1024];
const SUPERBLOCK_BYTES = 3072;

export interface F2fsSuperblock {
  /** of the whole filesystem */
  blocks: number;
  checkpointBlock: number;
  /** where data and nodes begin; before it lies only what the filesystem always uses */
  mainBlock: number;
  segmentBlocks: number;
  /** blocks of the unit by which it grows */
  sectionBlocks: number;
  features: number;
  severalDevices: boolean;
}

export interface F2fsCheckpoint {
  version: bigint;
  flags: number;
  /** blocks in use behind `mainBlock`, with those that are only promised to a file */
  validBlocks: number;
}

/** CP_UMOUNT_FLAG: nothing was written after it */
const UNMOUNTED = 0x1;
/** CP_ERROR_FLAG, CP_FSCK_FLAG */
const NEEDS_CHECK = 0x8 | 0x10;

/**
 * The first superblock of two. Layout: Linux, include/linux/f2fs_fs.h, struct f2fs_super_block.
 *
 * @throws ImagingError FILESYSTEM_CHECK_FAILED
 */
export const readF2fsSuperblock = async (device: string): Promise<F2fsSuperblock> => {
  const [first, second] = await Promise.all(
    COPIES.map(async (at) => await readAt(device, at, SUPERBLOCK_BYTES)),
  );
  if (!first || !second || !first.equals(second)) throw damaged('its two superblocks differ');
  return parseF2fsSuperblock(first);
};

/** @throws ImagingError FILESYSTEM_CHECK_FAILED, TOOL_FAILED */
export const parseF2fsSuperblock = (bytes: Buffer): F2fsSuperblock => {
  if (bytes.readUInt32LE(0) !== MAGIC) throw damaged('its superblock is not one');
  if (bytes.readUInt32LE(16) !== 12) {
    throw new ImagingError('TOOL_FAILED', 'Cannot trust a map of this F2FS: its blocks are not 4096 bytes');
  }
  const segmentBlocks = 2 ** bytes.readUInt32LE(20);
  return {
    segmentBlocks,
    sectionBlocks: segmentBlocks * bytes.readUInt32LE(24),
    blocks: Number(bytes.readBigUInt64LE(36)),
    checkpointBlock: bytes.readUInt32LE(76),
    mainBlock: bytes.readUInt32LE(92),
    features: bytes.readUInt32LE(2180),
    // path of the first of up to 8 devices
    severalDevices: bytes.readUInt8(2201) !== 0,
  };
};

/**
 * The newest checkpoint of two. One that does not match its checksum makes everybody, also fsck.f2fs,
 * fall back to the other without a word: to an older state of the filesystem.
 *
 * @throws ImagingError FILESYSTEM_CHECK_FAILED
 */
export const readF2fsCheckpoint = async (
  device: string,
  { checkpointBlock, segmentBlocks }: F2fsSuperblock,
): Promise<F2fsCheckpoint> => {
  const packs = [];
  for (const block of [checkpointBlock, checkpointBlock + segmentBlocks]) {
    const first = await readAt(device, block * F2FS_BLOCK, F2FS_BLOCK);
    const total = first.readUInt32LE(PACK_BLOCKS);
    if (total === 0 || total > segmentBlocks) throw damaged('a checkpoint of it has no end');
    const last = await readAt(device, (block + total - 1) * F2FS_BLOCK, F2FS_BLOCK);
    const pack = parseF2fsCheckpoint(first);
    if (parseF2fsCheckpoint(last).version !== pack.version) throw damaged('a checkpoint of it is not whole');
    packs.push(pack);
  }
  const [one, two] = packs;
  if (!one || !two) throw damaged('it has no checkpoint');
  return two.version > one.version ? two : one;
};

/** Places in struct f2fs_checkpoint. */
const PACK_BLOCKS = 136;
const CHECKSUM_PLACE = 164;
const LAST_PLACE = F2FS_BLOCK - 4;

/** @throws ImagingError FILESYSTEM_CHECK_FAILED */
export const parseF2fsCheckpoint = (block: Buffer): F2fsCheckpoint => {
  const place = block.readUInt32LE(CHECKSUM_PLACE);
  if (place < 192 || place > LAST_PLACE) throw damaged('a checkpoint of it is not one');
  const before = f2fsChecksum(block.subarray(0, place));
  // a large bitmap stands behind the checksum and is covered too
  const all = place < LAST_PLACE ? f2fsChecksum(block.subarray(place + 4), before) : before;
  if (all !== block.readUInt32LE(place)) {
    throw damaged("a checkpoint's checksum is wrong");
  }
  return {
    version: block.readBigUInt64LE(0),
    validBlocks: Number(block.readBigUInt64LE(16)),
    flags: block.readUInt32LE(132),
  };
};

/** CRC-32 with the magic as its seed, not inverted at either end. */
const f2fsChecksum = (bytes: Buffer, seed = MAGIC): number => ~crc32(bytes, ~seed >>> 0) >>> 0;

export const wasUnmounted = ({ flags }: F2fsCheckpoint): boolean => (flags & UNMOUNTED) !== 0;
export const needsCheck = ({ flags }: F2fsCheckpoint): boolean => (flags & NEEDS_CHECK) !== 0;

const damaged = (reason: string): ImagingError =>
  new ImagingError('FILESYSTEM_CHECK_FAILED', `Cannot trust this F2FS: ${reason}`);
