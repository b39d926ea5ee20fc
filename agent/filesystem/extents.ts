import { ImagingError } from '../errors.ts';
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

/** What lies between these extents, from 0 to limit. Bytes. */
export const invertExtents = (extents: readonly Extent[], limit: number): Extent[] => {
  const between: Extent[] = [];
  let end = 0;
  for (const { offset, length } of uniteExtents(extents, limit)) {
    if (offset > end) between.push({ offset: end, length: offset - end });
    end = offset + length;
  }
  if (end < limit) between.push({ offset: end, length: limit - end });
  return between;
};

export const totalLength = (extents: readonly Extent[]): number =>
  extents.reduce((sum, { length }) => sum + length, 0);

/**
 * partclone's map and another tool's view of the same filesystem, united. A few blocks that one of them
 * counts otherwise (reserved, bad, a tool's own cache) are normal; more than that, and nobody knows
 * which of the two is wrong.
 *
 * `tolerance`: bytes that partclone may lack of the other view.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const uniteViews = (
  device: string,
  partclone: readonly Extent[],
  other: { name: string; extents: readonly Extent[]; tolerance: number },
  limit: number,
): Extent[] => {
  const united = uniteExtents([...partclone, ...other.extents], limit);
  const lacking = totalLength(united) - totalLength(partclone);
  if (lacking <= other.tolerance) return united;
  throw new ImagingError(
    'TOOL_FAILED',
    `Cannot trust partclone's map of ${device}: it lacks ${lacking} bytes that ${other.name} calls used`,
  );
};
