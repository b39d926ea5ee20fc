import { readSync, writeSync } from 'node:fs';
import { ImagingError, isErrno } from '../errors.ts';
import type { Extent } from './extent.ts';
import type { ChunkPlace } from './job.ts';
import { zeroUnused } from './used-map.ts';

/** a gap smaller than this is read along: one larger read beats two */
const GAP = 65536;
const SECTOR = 512;

/**
 * Fill `target` with a chunk as the image format sees it: what `used` covers comes from the device, the rest
 * is zero. Returns the bytes read from the device.
 *
 * @throws ImagingError DISK_READ_FAILED with the first unreadable byte's offset and LBA
 */
export const readChunk = (place: ChunkPlace, target: Uint8Array, used: readonly Extent[]): number => {
  let bytes = 0;
  for (const span of readSpans(used, place.align, place.length)) {
    readFully(place, target.subarray(span.offset, span.offset + span.length), span.offset);
    bytes += span.length;
  }
  zeroUnused(target, 0, used);
  return bytes;
};

/** What to read for these extents: widened to `align`, near ones joined, within the chunk. */
export const readSpans = (used: readonly Extent[], align: number, length: number): Extent[] => {
  const spans: Extent[] = [];
  for (const extent of used) {
    const from = Math.floor(extent.offset / align) * align;
    const to = Math.min(length, Math.ceil((extent.offset + extent.length) / align) * align);
    const last = spans.at(-1);
    if (last && from - (last.offset + last.length) < GAP) last.length = to - last.offset;
    else spans.push({ offset: from, length: to - from });
  }
  return spans;
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

const readFully = (place: ChunkPlace, target: Uint8Array, from: number): void => {
  let done = 0;
  while (done < target.length) {
    const position = place.position + from + done;
    try {
      const count = readSync(place.fd, target, done, target.length - done, position);
      if (count === 0) throw new Error('the device ends here');
      done += count;
    } catch (error) {
      const at = isErrno(error, 'EIO') ? firstBadByte(place, target.subarray(done), position) : position;
      throw failure('DISK_READ_FAILED', 'read', at, error);
    }
  }
};

/** A large read says only that something in it failed: find what, for the person who has the disk. */
const firstBadByte = (place: ChunkPlace, target: Uint8Array, position: number): number => {
  const step = Math.max(SECTOR, place.align);
  for (let done = 0; done < target.length; done += step) {
    try {
      readSync(place.fd, target, done, Math.min(step, target.length - done), position + done);
    } catch {
      return position + done;
    }
  }
  return position;
};

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
