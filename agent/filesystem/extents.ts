import type { Extent } from '../image/extent.ts';

/** Sorted, disjoint, touching ones joined, cut to 0..limit. Bytes. */
export const uniteExtents = (extents: readonly Extent[], limit: number): Extent[] => {
  const united: Extent[] = [];
  for (const { offset, length } of [...extents].sort((a, b) => a.offset - b.offset)) {
    const end = Math.min(offset + length, limit);
    if (end <= offset) continue;
    const last = united.at(-1);
    if (last && offset <= last.offset + last.length) {
      last.length = Math.max(last.length, end - last.offset);
    } else united.push({ offset, length: end - offset });
  }
  return united;
};

export const totalLength = (extents: readonly Extent[]): number =>
  extents.reduce((sum, { length }) => sum + length, 0);
