import type { ByteRange } from '../protocol/common.ts';
import type { Grid } from './grid.ts';

/** one discard each: more of them cost a slow drive more time than their space is worth */
const MAX_RANGES = 1024;

/**
 * The runs of unused chunks of a partition, from its first byte: what a former owner left there is no part of the
 * image. The longest ones where there are many; in order.
 */
export const freeRanges = ({ used, count, chunkSize, size }: Grid, limit = MAX_RANGES): ByteRange[] => {
  const ranges: ByteRange[] = [];
  let next = 0;
  for (const number of [...used, count]) {
    const [start, end] = [next * chunkSize, Math.min(number * chunkSize, size)];
    if (end > start) ranges.push({ start, size: end - start });
    next = number + 1;
  }
  if (ranges.length <= limit) return ranges;
  return ranges
    .toSorted((a, b) => b.size - a.size)
    .slice(0, limit)
    .toSorted((a, b) => a.start - b.start);
};
