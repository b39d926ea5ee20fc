import { readSync, writeSync } from 'node:fs';
import { ImagingError } from '../errors.ts';
import type { Extent } from './extent.ts';
import type { ChunkPlace } from './job.ts';
import { type Around, isMediumError, joined, readAround } from './read-around.ts';
import { zeroUnused } from './used-map.ts';

/** a gap smaller than this is read along: one larger read beats two */
const GAP = 65536;
const SECTOR = 512;

/** bad ranges that an error names; more of them help nobody who reads it */
const NAMED_RANGES = 32;

/**
 * Fill `target` with a chunk as the image format sees it: what `used` covers comes from the device, the rest
 * is zero. Returns the bytes read from the device. Where a read fails, `lookSeconds` are spent on finding out
 * what exactly cannot be read; a bad sector that nobody uses is no failure.
 *
 * @throws ImagingError DISK_READ_FAILED: first unreadable byte in `offset` and `lba`, all that were found in
 *   `ranges` (512-byte sectors from the start of the device); `isComplete` false where the time was too short
 */
export const readChunk = (
  place: ChunkPlace,
  target: Uint8Array,
  used: readonly Extent[],
  lookSeconds = 0,
): number => {
  let bytes = 0;
  try {
    for (const { offset, length } of readSpans(used, place.align, place.length)) {
      readFully(place, target, offset, length);
      bytes += length;
    }
  } catch (error) {
    if (!(error instanceof ReadFailure) || !isMediumError(error.cause)) throw translated(error);
    const around = lookAround(place, target, used, lookSeconds, 0);
    if (around.bad.length + around.untried.length > 0) throw unreadable(place, around, error);
  }
  zeroUnused(target, 0, used);
  return bytes;
};

/**
 * The same for a chunk that has bad sectors: zeros stand for what cannot be read within `seconds`, and `damaged`
 * says where, from the chunk's first byte; parts that nobody uses are left out.
 *
 * @throws ImagingError DISK_READ_FAILED: the device fails as a whole
 */
export const rescueChunk = (
  place: ChunkPlace,
  target: Uint8Array,
  used: readonly Extent[],
  seconds: number,
): { bytesRead: number; damaged: Extent[] } => {
  const { bad, untried } = lookAround(place, target, used, seconds, 1);
  const lost = joined([...bad, ...untried]);
  for (const { offset, length } of lost) target.fill(0, offset, offset + length);
  zeroUnused(target, 0, used);
  const damaged = intersection(lost, used);
  return { bytesRead: sum(used) - sum(damaged), damaged };
};

const sum = (extents: readonly Extent[]): number => extents.reduce((all, { length }) => all + length, 0);

const lookAround = (
  place: ChunkPlace,
  target: Uint8Array,
  used: readonly Extent[],
  seconds: number,
  retries: number,
): Around => {
  const spans = joined(used.map((extent) => widened(extent, place.align, place.length)));
  const read = (offset: number, length: number): void => {
    try {
      readFully(place, target, offset, length);
    } catch (error) {
      throw error instanceof ReadFailure && isMediumError(error.cause) ? error.cause : translated(error);
    }
  };
  return readAround(spans, { step: Math.max(SECTOR, place.align), seconds, retries, read });
};

/** The parts of `extents` that `used` covers; both sorted and disjoint. */
const intersection = (extents: readonly Extent[], used: readonly Extent[]): Extent[] =>
  extents.flatMap(({ offset, length }) =>
    used.flatMap((part) => {
      const from = Math.max(offset, part.offset);
      const to = Math.min(offset + length, part.offset + part.length);
      return to > from ? [{ offset: from, length: to - from }] : [];
    }),
  );

/** What to read for these extents: widened to `align`, near ones joined, within the chunk. */
export const readSpans = (used: readonly Extent[], align: number, length: number): Extent[] => {
  const spans: Extent[] = [];
  for (const extent of used) {
    const span = widened(extent, align, length);
    const last = spans.at(-1);
    if (last && span.offset - (last.offset + last.length) < GAP) {
      last.length = span.offset + span.length - last.offset;
    } else spans.push(span);
  }
  return spans;
};

const widened = (extent: Extent, align: number, length: number): Extent => {
  const from = Math.floor(extent.offset / align) * align;
  const to = Math.min(length, Math.ceil((extent.offset + extent.length) / align) * align);
  return { offset: from, length: to - from };
};

/**
 * Write `plain` at `position`, all of it.
 *
 * @throws ImagingError DISK_WRITE_FAILED with the offset
 */
export const writeChunk = (fd: number, plain: Uint8Array, position: number): void => {
  let done = 0;
  while (done < plain.length) {
    try {
      const written = writeSync(fd, plain, done, plain.length - done, position + done);
      if (written === 0) throw new Error('the device takes no more bytes');
      done += written;
    } catch (error) {
      throw failure('DISK_WRITE_FAILED', 'write', position + done, error);
    }
  }
};

/** Where a read failed, and with what; never leaves this file. */
class ReadFailure extends Error {
  readonly position: number;
  constructor(position: number, cause: unknown) {
    super('read failed', { cause });
    this.position = position;
  }
}

const readFully = (place: ChunkPlace, target: Uint8Array, offset: number, length: number): void => {
  for (let done = 0; done < length; ) {
    const position = place.position + offset + done;
    try {
      const count = readSync(place.fd, target, offset + done, length - done, position);
      if (count === 0) throw new Error('the device ends here');
      done += count;
    } catch (error) {
      throw new ReadFailure(position, error);
    }
  }
};

const translated = (error: unknown): unknown =>
  error instanceof ReadFailure ? failure('DISK_READ_FAILED', 'read', error.position, error.cause) : error;

const unreadable = (
  place: ChunkPlace,
  { bad, untried }: Around,
  { position, cause }: ReadFailure,
): ImagingError => {
  const ranges = bad.slice(0, NAMED_RANGES).map(({ offset, length }) => ({
    lba: Math.floor((place.position + offset) / SECTOR),
    sectors: Math.ceil(length / SECTOR),
  }));
  const [first] = bad;
  const error = failure('DISK_READ_FAILED', 'read', first ? place.position + first.offset : position, cause);
  const isComplete = untried.length === 0 && bad.length <= NAMED_RANGES;
  const named = ranges.length > 0 ? `; unreadable sectors here: ${ranges.map(spoken).join(', ')}` : '';
  return new ImagingError(error.code, `${error.message}${named}${isComplete ? '' : ' and perhaps more'}`, {
    details: { ...error.details, ranges, isComplete },
    cause,
  });
};

const spoken = ({ lba, sectors }: { lba: number; sectors: number }): string =>
  sectors === 1 ? String(lba) : `${lba}-${lba + sectors - 1}`;

const failure = (
  code: 'DISK_READ_FAILED' | 'DISK_WRITE_FAILED',
  verb: string,
  offset: number,
  cause: unknown,
): ImagingError => {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const lba = Math.floor(offset / SECTOR);
  return new ImagingError(
    code,
    `Cannot ${verb} the disk at byte ${offset} (512-byte sector ${lba}): ${reason}`,
    {
      details: { offset, lba, errno: errnoOf(cause) },
      cause,
    },
  );
};

const errnoOf = (error: unknown): string | null =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : null;
