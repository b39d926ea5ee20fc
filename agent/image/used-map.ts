import type { Extent } from './extent.ts';

/** Zero what `extents` (sorted, disjoint) do not cover in `buffer`, which begins at `offset`. */
export const zeroUnused = (buffer: Uint8Array, offset: number, extents: readonly Extent[]): void => {
  let at = 0;
  for (const extent of extents) {
    const from = extent.offset - offset;
    const to = from + extent.length;
    if (to <= at) continue;
    if (from >= buffer.length) break;
    if (from > at) buffer.fill(0, at, from);
    at = to;
  }
  if (at < buffer.length) buffer.fill(0, at);
};
