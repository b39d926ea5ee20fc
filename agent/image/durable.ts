import type { Grid } from './grid.ts';

/** [first, last] chunk numbers, both included, ascending, disjoint */
export type ChunkRange = [number, number];

/**
 * The used chunks that these ranges cover. What lies outside the grid is left out: the ranges come from a
 * server that heard them from a former attempt.
 */
export const chunksIn = (ranges: readonly (readonly [number, number])[], grid: Grid): number[] => {
  const sorted = ranges.toSorted((a, b) => a[0] - b[0]);
  let at = 0;
  let end = -1;
  return grid.used.filter((number) => {
    for (let range = sorted[at]; range && range[0] <= number; range = sorted[at]) {
      end = Math.max(end, range[1]);
      at += 1;
    }
    return number <= end;
  });
};

/** Ranges of the used chunks for which `isDurable` holds; unused chunks in between do not split a range. */
export const rangesOf = (grid: Grid, isDurable: (number: number) => boolean): ChunkRange[] => {
  const ranges: ChunkRange[] = [];
  let open: ChunkRange | undefined;
  for (const number of grid.used) {
    if (!isDurable(number)) open = undefined;
    else if (open) open[1] = number;
    else {
      open = [number, number];
      ranges.push(open);
    }
  }
  return ranges;
};
