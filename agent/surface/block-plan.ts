/** How badblocks is told to go over a disk. Sizes in bytes. */
export interface BlockPlan {
  blockSize: number;
  /** whole blocks; the number of the last one is one less */
  blocks: number;
  /** blocks in one read */
  atOnce: number;
  /** what is left behind the last whole block, which badblocks does not look at */
  tail: number;
}

/** badblocks reads past the page cache only in whole pages (e2fsprogs 1.47): below that one bad sector takes seven good ones with it */
const PAGE = 4096;
/** "invalid end block: must be 32-bit value" (e2fsprogs 1.47), so 8 TiB with its own default of 1 KiB */
const MOST_BLOCKS = 2 ** 32 - 1;
/** long enough for every disk's full speed; in read-write mode also what a power cut can cost */
export const AT_ONCE_BYTES = 1024 * 1024;

/** The smallest blocks that badblocks can count on a disk of `size` bytes and that are no smaller than a sector or a page. */
export const planBlocks = (size: number, physicalSectorSize: number): BlockPlan => {
  let blockSize = PAGE;
  while (blockSize < physicalSectorSize || Math.floor(size / blockSize) > MOST_BLOCKS) blockSize *= 2;
  return {
    blockSize,
    blocks: Math.floor(size / blockSize),
    atOnce: Math.max(1, AT_ONCE_BYTES / blockSize),
    tail: size % blockSize,
  };
};
