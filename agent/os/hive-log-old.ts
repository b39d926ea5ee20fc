import { BASE_BYTES, base } from './hive-layout.ts';
import { type DirtyPage, type LogEntry, refused } from './hive-log-entry.ts';

const PAGE = 512;
/** Windows marks 4096 bytes at a time: eight pages, a byte of the bitmap */
const MARKED = 0xff;

/**
 * The one write that a log of the old format holds (until Windows 8): a bitmap of 512-byte pages, "DIRT", then those
 * pages. It is this hive's last one when both were written at the same time and its numbers are those of the hive's
 * unfinished write (Vista and later), or one less (XP). Pure.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const dirtyVector = (hive: Buffer, logs: readonly Buffer[]): LogEntry[] => {
  const primary = hive.readUInt32LE(base.primarySequence);
  const [log, ...others] = logs.filter((one) => {
    const sequence = one.readUInt32LE(base.primarySequence);
    return (
      one.readBigUInt64LE(base.lastWritten) === hive.readBigUInt64LE(base.lastWritten) &&
      sequence === one.readUInt32LE(base.secondarySequence) &&
      (sequence === primary || sequence === primary - 1)
    );
  });
  if (!log) return [];
  if (others.length > 0) throw refused('two logs claim to be its last');
  const binsSize = log.readUInt32LE(base.binsSize);
  const bits = log.subarray(BASE_BYTES + 4, BASE_BYTES + 4 + binsSize / PAGE / 8);
  if (
    log.toString('latin1', BASE_BYTES, BASE_BYTES + 4) !== 'DIRT' ||
    binsSize === 0 ||
    binsSize % 4096 !== 0
  ) {
    throw refused('a log has no list of its pages');
  }
  const pages: DirtyPage[] = [];
  let from = Math.ceil((BASE_BYTES + 4 + bits.length) / PAGE) * PAGE;
  for (const [at, byte] of bits.entries()) {
    if (byte === 0) continue;
    const bytes = log.subarray(from, from + 8 * PAGE);
    if (byte !== MARKED || bytes.length < 8 * PAGE) throw refused('a log lacks pages');
    pages.push({ offset: at * 8 * PAGE, bytes });
    from += bytes.length;
  }
  if (bits.length !== binsSize / PAGE / 8 || pages.length === 0) throw refused('a log lacks pages');
  return [{ sequence: primary, binsSize, flags: null, pages }];
};
