import type { Extent } from './extent.ts';

/** A partition's chunk grid with what is used on it. */
export interface Grid {
  chunkSize: number;
  /** bytes of the partition */
  size: number;
  /** number of chunks */
  count: number;
  /** bytes of this chunk: all alike but the last */
  length(number: number): number;
  /** what is used of this chunk, from the chunk's first byte */
  usedOf(number: number): Extent[];
  /** chunks of which anything is used, ascending; the others are never read and never written */
  used: number[];
  /** plain bytes of the used chunks */
  usedBytes: number;
}

const SMALLEST_GRID = 256 * 1024;
/** chunks of one partition: an index of 80 MB, which a machine with 1 GiB can still hold */
const MOST_CHUNKS = 2 * 1024 * 1024;

/**
 * The grid of a new image whose largest partition has `size` bytes: 256 KiB up to 512 GiB, then doubled as often as
 * it takes to bound the index (1 MiB at 2 TiB). The same disk always gets the same grid, so that its captures share
 * chunks. Why 256 KiB: README.md, "Chunk size".
 */
export const chunkSizeFor = (size: number): number => {
  let chunkSize = SMALLEST_GRID;
  while (size / chunkSize > MOST_CHUNKS) chunkSize *= 2;
  return chunkSize;
};

/** Lay the grid over a partition. `extents` are normalised (normaliseExtents). */
export const chunkUsage = (extents: readonly Extent[], chunkSize: number, size: number): Grid => {
  const count = Math.ceil(size / chunkSize);
  const length = (number: number): number => Math.min(chunkSize, size - number * chunkSize);

  const usedOf = (number: number): Extent[] => {
    const from = number * chunkSize;
    const to = from + length(number);
    const inside: Extent[] = [];
    for (let at = firstEndingAfter(extents, from); at < extents.length; at += 1) {
      const extent = extents[at];
      if (!extent || extent.offset >= to) break;
      const start = Math.max(extent.offset, from);
      inside.push({ offset: start - from, length: Math.min(extent.offset + extent.length, to) - start });
    }
    return inside;
  };

  const used: number[] = [];
  let usedBytes = 0;
  for (const { offset, length: bytes } of extents) {
    const last = Math.floor((offset + bytes - 1) / chunkSize);
    for (let number = Math.floor(offset / chunkSize); number <= last; number += 1) {
      if (used.at(-1) === number) continue;
      used.push(number);
      usedBytes += length(number);
    }
  }
  return { chunkSize, size, count, length, usedOf, used, usedBytes };
};

/** binary search: the first extent that ends after `offset` */
const firstEndingAfter = (extents: readonly Extent[], offset: number): number => {
  let low = 0;
  let high = extents.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const extent = extents[middle];
    if (extent && extent.offset + extent.length <= offset) low = middle + 1;
    else high = middle;
  }
  return low;
};
