import { BASE_BYTES, BINS, base, setChecksum } from '../agent/os/hive-layout.ts';
import { marvin32 } from '../agent/os/marvin32.ts';

const SECTOR = 512;

/** A hive in the middle of a write: its numbers differ. */
export const notClosed = (hive: Buffer, sequence: number): Buffer => {
  const copy = Buffer.from(hive);
  copy.writeUInt32LE(sequence + 1, base.primarySequence);
  copy.writeUInt32LE(sequence, base.secondarySequence);
  setChecksum(copy);
  return copy;
};

export interface Page {
  offset: number;
  bytes: Buffer;
}

/** Pages of 4096 bytes of the bins in which two hives differ, and those that the second has more. */
export const changedPages = (before: Buffer, after: Buffer): Page[] => {
  const pages: Page[] = [];
  for (let offset = 0; offset < after.readUInt32LE(base.binsSize); offset += BINS) {
    const bytes = after.subarray(BINS + offset, 2 * BINS + offset);
    const old = before.subarray(BINS + offset, 2 * BINS + offset);
    if (offset >= before.readUInt32LE(base.binsSize) || !bytes.equals(old)) pages.push({ offset, bytes });
  }
  return pages;
};

export interface EntryFields {
  sequence: number;
  binsSize: number;
  pages: readonly Page[];
  flags?: number;
  /** for entries that contradict themselves */
  size?: number;
  count?: number;
}

const SEED = 0x82ef4d887a4e55c5n;

/** An entry as Windows 8.1 and later write them, its hashes right whatever it says. */
export const entryOf = ({ sequence, binsSize, pages, flags = 0, ...odd }: EntryFields): Buffer => {
  const references = pages.map(({ offset, bytes }) => {
    const reference = Buffer.alloc(8);
    reference.writeUInt32LE(offset);
    reference.writeUInt32LE(bytes.length, 4);
    return reference;
  });
  const body = Buffer.concat([...references, ...pages.map(({ bytes }) => bytes)]);
  const entry = Buffer.alloc(Math.ceil((40 + body.length) / SECTOR) * SECTOR);
  entry.write('HvLE', 'latin1');
  const fields = [odd.size ?? entry.length, flags, sequence, binsSize, odd.count ?? pages.length];
  for (const [at, field] of fields.entries()) entry.writeUInt32LE(field, 4 + at * 4);
  body.copy(entry, 40);
  entry.writeBigUInt64LE(marvin32(entry.subarray(40), SEED), 24);
  entry.writeBigUInt64LE(marvin32(entry.subarray(0, 32), SEED), 32);
  return entry;
};

const logBase = (hive: Buffer, type: number, sequence: number): Buffer => {
  const head = Buffer.from(hive.subarray(0, BASE_BYTES));
  head.writeUInt32LE(type, base.fileType);
  head.writeUInt32LE(sequence, base.primarySequence);
  head.writeUInt32LE(sequence, base.secondarySequence);
  setChecksum(head);
  return head;
};

/** A log of the new format; `tail`: what lies behind its entries. */
export const newLog = (
  hive: Buffer,
  entries: readonly EntryFields[],
  tail: Buffer = Buffer.alloc(SECTOR),
): Buffer => Buffer.concat([logBase(hive, 6, entries[0]?.sequence ?? 0), ...entries.map(entryOf), tail]);

/** The one from `before` to `after`, in so many entries from a sequence number on. */
export const entriesBetween = (
  before: Buffer,
  after: Buffer,
  sequence: number,
  number: number,
): EntryFields[] => {
  const pages = changedPages(before, after);
  const share = Math.ceil(pages.length / number);
  const binsSize = after.readUInt32LE(base.binsSize);
  return Array.from({ length: number }, (_, at) => ({
    sequence: sequence + at,
    binsSize,
    pages: pages.slice(at * share, (at + 1) * share),
  })).filter((entry) => entry.pages.length > 0);
};

/** A log of the old format: a bitmap of 512-byte pages, then those pages. */
export const oldLog = (hive: Buffer, after: Buffer, sequence: number): Buffer => {
  const head = logBase(hive, 1, sequence);
  const binsSize = after.readUInt32LE(base.binsSize);
  head.writeUInt32LE(binsSize, base.binsSize);
  setChecksum(head);
  const vector = Buffer.alloc(Math.ceil((4 + binsSize / BINS) / SECTOR) * SECTOR);
  vector.write('DIRT', 'latin1');
  const pages = changedPages(hive, after);
  for (const { offset } of pages) vector[4 + offset / BINS] = 0xff;
  return Buffer.concat([head, vector, ...pages.map(({ bytes }) => bytes)]);
};
