import { BINS, base, binsProblem, hasChecksum, isBaseBlock, isClean, setChecksum } from './hive-layout.ts';
import { type LogEntry, refused } from './hive-log-entry.ts';
import { entriesOf } from './hive-log-new.ts';
import { dirtyVector } from './hive-log-old.ts';

/** Kinds of log: "DIRT", until Windows 8; "HvLE", since 8.1. Field `fileType` of their base block. */
const OLD_LOG = 1;
const NEW_LOG = 6;

/**
 * A hive that was not closed, as Windows would have it after its next start: what waits in its logs is applied, and
 * it is closed. Windows heals and guesses where a log is torn; here whatever is not whole and in order is
 * refused, and the hive stays as it is. A hive that is closed is returned as it is, whatever its logs hold. Format and rules:
 * "Windows registry file format specification" (Maxim Suhanov), "Format of transaction log files". Pure.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const replayHive = (hive: Buffer, logs: readonly Buffer[]): Buffer => {
  if (!isBaseBlock(hive) || hive.length < BINS) throw refused('no hive');
  if (isClean(hive)) return hive;
  if (!hasChecksum(hive)) throw refused('the checksum of its first block is wrong');
  const primary = hive.readUInt32LE(base.primarySequence);
  const secondary = hive.readUInt32LE(base.secondarySequence);
  if (primary !== secondary + 1) throw refused(`its sequence numbers are ${primary} and ${secondary}`);

  const kept = logs.filter((log) => log.some((byte) => byte !== 0));
  for (const log of kept) assertLogOf(hive, log);
  const kinds = new Set(kept.map((log) => log.readUInt32LE(base.fileType)));
  if (kinds.size > 1) throw refused('its logs are of two formats');
  const entries = kinds.has(OLD_LOG) ? dirtyVector(hive, kept) : inOrder(kept.flatMap(entriesOf), secondary);
  if (entries.length === 0) throw refused('its changes are in no log');
  const replayed = applied(hive, entries);
  const problem = binsProblem(replayed);
  if (problem) throw refused(`after its logs were applied, ${problem}`);
  return replayed;
};

const assertLogOf = (hive: Buffer, log: Buffer): void => {
  if (!isBaseBlock(log) || !hasChecksum(log)) throw refused('a log has no base block');
  const type = log.readUInt32LE(base.fileType);
  if (type !== OLD_LOG && type !== NEW_LOG) throw refused(`a log is of type ${type}`);
  for (const field of [base.minorVersion, base.fileFormat, base.rootCell]) {
    if (log.readUInt32LE(field) !== hive.readUInt32LE(field)) throw refused('a log belongs to another hive');
  }
};

/** The entries that the hive waits for: from its secondary number on, without a gap, each once. */
const inOrder = (all: readonly LogEntry[], first: number): LogEntry[] => {
  const waiting = all.filter(({ sequence }) => sequence >= first).toSorted((a, b) => a.sequence - b.sequence);
  for (const [index, { sequence }] of waiting.entries()) {
    if (sequence !== first + index) throw refused(`entry ${first + index} is missing or is there twice`);
  }
  return waiting;
};

const applied = (hive: Buffer, entries: readonly LogEntry[]): Buffer => {
  const largest = Math.max(...entries.map(({ binsSize }) => binsSize), hive.readUInt32LE(base.binsSize));
  const replayed = Buffer.alloc(BINS + largest);
  hive.copy(replayed);
  let end = BINS + hive.readUInt32LE(base.binsSize);
  for (const { sequence, binsSize, flags, pages } of entries) {
    // what lies behind the bins is padding, and no part of what grows over it
    if (BINS + binsSize > end) replayed.fill(0, end, BINS + binsSize);
    end = BINS + binsSize;
    for (const { offset, bytes } of pages) bytes.copy(replayed, BINS + offset);
    replayed.writeUInt32LE(binsSize, base.binsSize);
    if (flags !== null) replayed.writeUInt32LE(flags, base.flags);
    replayed.writeUInt32LE(sequence, base.primarySequence);
    replayed.writeUInt32LE(sequence, base.secondarySequence);
  }
  setChecksum(replayed);
  return replayed.subarray(0, end);
};
