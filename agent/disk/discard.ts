import { hasCode, ImagingError, isImagingError } from '../errors.ts';
import { run } from '../process/run.ts';
import type { ByteRange } from '../protocol/index.ts';
import { assertClaim, type DiskClaim } from './claim.ts';
import { kernelNameOf, readNumber, sysfsOf } from './sysfs.ts';

export interface DiscardResult {
  /** bytes */
  discarded: number;
  /** why nothing or not all was discarded; for the task's warnings */
  warning: string | null;
}

/**
 * Tell the device which ranges hold nothing (plan.unused), after the data is there. What the former
 * owner left in them is then gone on most SSDs; where the device cannot, that is a warning, not a failure.
 *
 * @throws ImagingError TASK_CANCELLED, INTERNAL (no claim, or a range beyond the disk)
 */
export const discardRanges = async (
  claim: DiskClaim,
  ranges: readonly ByteRange[],
  options: { signal?: AbortSignal } = {},
): Promise<DiscardResult> => {
  assertClaim(claim);
  const { path, disk } = claim;
  if (ranges.some(({ start, size }) => start < 0 || size < 0 || start + size > disk.size)) {
    throw new ImagingError('INTERNAL', `Cannot discard on ${path}: a range is beyond the disk`);
  }
  const queue = `${sysfsOf(kernelNameOf(path))}/queue`;
  if (!(await readNumber(queue, 'discard_max_bytes'))) {
    return { discarded: 0, warning: `${path} cannot discard: unused space keeps what it held` };
  }
  const granularity = Math.max((await readNumber(queue, 'discard_granularity')) ?? 0, disk.logicalSectorSize);
  let discarded = 0;
  for (const range of ranges) {
    const start = Math.ceil(range.start / granularity) * granularity;
    const end = Math.floor((range.start + range.size) / granularity) * granularity;
    if (end <= start) continue;
    try {
      const args = ['--force', '--offset', String(start), '--length', String(end - start), path];
      await run('blkdiscard', args, { ...options, timeoutMs: 30 * 60_000 });
      discarded += end - start;
    } catch (error) {
      if (!isImagingError(error) || hasCode(error, 'TASK_CANCELLED')) throw error;
      return { discarded, warning: `${path} refused to discard: ${error.message}` };
    }
  }
  return { discarded, warning: null };
};
