import { BASE_BYTES, BINS } from './hive-layout.ts';
import { type DirtyPage, type LogEntry, refused } from './hive-log-entry.ts';
import { marvin32 } from './marvin32.ts';

/** larger than any hive that Windows loads */
const MAX_BINS = 2 ** 31;
/** of Windows' kernel, as a number of 64 bits */
const SEED = 0x82ef4d887a4e55c5n;
const ENTRY_HEAD = 40;
const REFERENCE = 8;
const SECTOR = 512;

/**
 * Entries of a log of the new format ("HvLE", since Windows 8.1) from its first on, each one number higher; what lies
 * behind them is left from former rounds. Pure.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const entriesOf = (log: Buffer): LogEntry[] => {
  const entries: LogEntry[] = [];
  for (let at = BASE_BYTES; isEntry(log, at); ) {
    const { entry, size } = entryAt(log, at);
    const last = entries.at(-1);
    if (last && entry.sequence <= last.sequence) break;
    if (last && entry.sequence !== last.sequence + 1) throw refused(`entry ${last.sequence + 1} is missing`);
    entries.push(entry);
    at += size;
  }
  return entries;
};

const SIGNATURE = Buffer.from('HvLE', 'latin1');

/** An entry without its signature would look like the end of the log, and what follows would be lost. */
const isEntry = (log: Buffer, at: number): boolean => {
  if (at + ENTRY_HEAD > log.length) return false;
  const [signature, head] = [log.subarray(at, at + 4), log.subarray(at + 4, at + 32)];
  if (signature.equals(SIGNATURE)) return true;
  if (marvin32(Buffer.concat([SIGNATURE, head]), SEED) !== log.readBigUInt64LE(at + 32)) return false;
  throw refused(`an entry at byte ${at} of a log has lost its signature`);
};

const entryAt = (log: Buffer, at: number): { entry: LogEntry; size: number } => {
  const field = (offset: number): number => log.readUInt32LE(at + offset);
  const [size, flags, sequence, binsSize, count] = [field(4), field(8), field(12), field(16), field(20)];
  if (size < ENTRY_HEAD || size % SECTOR !== 0 || at + size > log.length) {
    throw refused(`entry ${sequence} has ${size} bytes`);
  }
  const head = log.subarray(at, at + 32);
  const body = log.subarray(at + ENTRY_HEAD, at + size);
  const isWhole =
    marvin32(body, SEED) === log.readBigUInt64LE(at + 24) &&
    marvin32(head, SEED) === log.readBigUInt64LE(at + 32);
  if (!isWhole) throw refused(`entry ${sequence} was not written whole`);
  if (binsSize === 0 || binsSize % BINS !== 0 || binsSize > MAX_BINS) {
    throw refused(`entry ${sequence} speaks of ${binsSize} bytes of bins`);
  }
  return { entry: { sequence, binsSize, flags, pages: pagesIn(body, count, sequence, binsSize) }, size };
};

const pagesIn = (body: Buffer, count: number, sequence: number, binsSize: number): DirtyPage[] => {
  const pages: DirtyPage[] = [];
  let from = count * REFERENCE;
  let free = 0;
  if (count === 0 || from > body.length) throw refused(`entry ${sequence} has ${count} pages`);
  for (let number = 0; number < count; number++) {
    const offset = body.readUInt32LE(number * REFERENCE);
    const length = body.readUInt32LE(number * REFERENCE + 4);
    const isInside = offset >= free && offset + length <= binsSize && from + length <= body.length;
    if (!isInside || length === 0 || offset % SECTOR !== 0 || length % SECTOR !== 0) {
      throw refused(`page ${number} of entry ${sequence} has no place`);
    }
    pages.push({ offset, bytes: body.subarray(from, from + length) });
    free = offset + length;
    from += length;
  }
  return pages;
};
