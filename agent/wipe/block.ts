import { readSync, writeSync } from 'node:fs';
import { ImagingError, isErrno } from '../errors.ts';
import type { Extent } from '../image/extent.ts';
import { isMediumError, joined, readAround } from '../image/read-around.ts';

const SECTOR = 512;

/** A piece of a disk and the bytes that belong there. Extents below count from the start of the disk. */
export interface BlockAt {
  fd: number;
  /** bytes from the start of the disk */
  position: number;
  /** what is written and read keeps to multiples of this (O_DIRECT); 1 for buffered descriptors */
  align: number;
}

/**
 * Write `bytes`. Where the medium fails, everything around it is written and each bad sector is tried again; what cannot be
 * written, or not within `seconds`, is returned.
 *
 * @throws ImagingError DISK_WRITE_FAILED: the device fails as a whole (pulled out, read-only)
 */
export const writeBlock = (place: BlockAt, bytes: Uint8Array, seconds: number): Extent[] => {
  const write = (offset: number, length: number): void => {
    for (let done = 0; done < length; ) {
      const from = offset + done;
      const count = writePart(place.fd, bytes, from, length - done, place.position + from);
      if (count === 0) throw Object.assign(new Error('wrote 0 bytes'), { code: 'EIO' });
      done += count;
    }
  };
  try {
    return around(place, bytes.length, seconds, write);
  } catch (cause) {
    throw deviceError('DISK_WRITE_FAILED', 'write to', place, cause);
  }
};

/** A thin disk whose pool is full says so for each place: a fault of the place, as a bad sector is. */
const writePart = (
  fd: number,
  bytes: Uint8Array,
  offset: number,
  length: number,
  position: number,
): number => {
  try {
    return writeSync(fd, bytes, offset, length, position);
  } catch (error) {
    if (!isErrno(error, 'ENOSPC')) throw error;
    throw Object.assign(new Error('the pool behind the disk is full', { cause: error }), { code: 'EIO' });
  }
};

/**
 * Read into `target`. What cannot be read, or not within `seconds`, is returned.
 *
 * @throws ImagingError DISK_READ_FAILED: the device fails as a whole
 */
export const readBlock = (place: BlockAt, target: Uint8Array, seconds: number): Extent[] => {
  const read = (offset: number, length: number): void => {
    for (let done = 0; done < length; ) {
      const count = readSync(place.fd, target, offset + done, length - done, place.position + offset + done);
      if (count === 0) throw Object.assign(new Error('the disk ends here'), { code: 'ENXIO' });
      done += count;
    }
  };
  try {
    return around(place, target.length, seconds, read);
  } catch (cause) {
    throw deviceError('DISK_READ_FAILED', 'read', place, cause);
  }
};

/** The sectors in which these bytes are not the expected ones, outside of `unread`. */
export const differingSectors = (
  { position, align }: BlockAt,
  bytes: Uint8Array,
  expected: Uint8Array,
  unread: readonly Extent[],
): Extent[] => {
  if (Buffer.compare(bytes, expected) === 0) return [];
  const step = Math.max(SECTOR, align);
  const sectors: Extent[] = [];
  for (let at = 0; at < bytes.length; at += step) {
    const [offset, length] = [position + at, Math.min(step, bytes.length - at)];
    const isUnread = unread.some((bad) => bad.offset <= offset && offset < bad.offset + bad.length);
    if (
      !isUnread &&
      Buffer.compare(bytes.subarray(at, at + length), expected.subarray(at, at + length)) !== 0
    )
      sectors.push({ offset, length });
  }
  return joined(sectors);
};

type Transfer = (offset: number, length: number) => void;

/** All at once; where that fails, piece by piece down to single sectors. Returns what did not succeed. */
const around = (place: BlockAt, length: number, seconds: number, transfer: Transfer): Extent[] => {
  try {
    transfer(0, length);
    return [];
  } catch (error) {
    if (!isMediumError(error)) throw error;
  }
  const step = Math.max(SECTOR, place.align);
  const { bad, untried } = readAround([{ offset: 0, length }], { step, seconds, read: transfer });
  return joined([...bad, ...untried]).map((piece) => ({
    offset: place.position + piece.offset,
    length: piece.length,
  }));
};

const deviceError = (
  code: 'DISK_READ_FAILED' | 'DISK_WRITE_FAILED',
  what: string,
  { position }: BlockAt,
  cause: unknown,
): ImagingError => {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new ImagingError(code, `Cannot ${what} the disk at ${position}: ${reason}`, {
    details: { offset: position },
    cause,
  });
};
