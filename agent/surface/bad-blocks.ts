import type { Extent } from '../image/extent.ts';
import { joined } from '../image/read-around.ts';
import { type BadSurface, NAMED_BAD_RANGES } from '../protocol/index.ts';

const SECTOR = 512;

/** Bad blocks as they are found, merged to ranges; bounded, however sick the disk is. Offsets in bytes of the disk. */
export interface BadBlocks {
  /** @returns the range that this block begins; null where it only makes the last one longer */
  add(block: number): Extent | null;
  readonly blocks: number;
  readonly ranges: number;
  /** the ranges that are named, in blocks */
  named(): Extent[];
  /** ranges beyond those, and what is in them, sectors of 512 bytes */
  more(): BadSurface['more'];
}

export const collectBadBlocks = (blockSize: number, most = NAMED_BAD_RANGES): BadBlocks => {
  const named: Extent[] = [];
  let last: Extent | undefined;
  let ranges = 0;
  let blocks = 0;
  let beyond = 0;
  return {
    add: (block) => {
      const offset = block * blockSize;
      blocks += 1;
      if (ranges > most) beyond += 1;
      if (last && last.offset + last.length === offset) {
        last.length += blockSize;
        return null;
      }
      last = { offset, length: blockSize };
      ranges += 1;
      if (ranges <= most) named.push(last);
      // the first block of the first range beyond was not counted above
      else if (ranges === most + 1) beyond += 1;
      return { ...last };
    },
    get blocks() {
      return blocks;
    },
    get ranges() {
      return ranges;
    },
    named: () => joined(named),
    more: () => ({ ranges: Math.max(0, ranges - most), sectors: (beyond * blockSize) / SECTOR }),
  };
};

/** What a report says of these places and of those that nobody named. */
export const badSurfaceOf = (
  extents: readonly Extent[],
  more: BadSurface['more'] = { ranges: 0, sectors: 0 },
  most = NAMED_BAD_RANGES,
): BadSurface => {
  const all = joined(extents).map(({ offset, length }) => {
    const lba = Math.floor(offset / SECTOR);
    const sectors = Math.ceil((offset + length) / SECTOR) - lba;
    return { lba, sectors, start: lba * SECTOR, size: sectors * SECTOR };
  });
  const [ranges, rest] = [all.slice(0, most), all.slice(most)];
  const sectors = all.reduce((sum, range) => sum + range.sectors, 0) + more.sectors;
  return {
    ranges,
    more: {
      ranges: rest.length + more.ranges,
      sectors: rest.reduce((sum, range) => sum + range.sectors, 0) + more.sectors,
    },
    sectors,
    bytes: sectors * SECTOR,
  };
};
