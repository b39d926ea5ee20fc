import binding from 'zstd-napi/binding.js';
import { ImagingError } from '../errors.ts';
import { compressFrame } from './codec.ts';
import type { Extent } from './extent.ts';
import { frameLimit } from './limit.ts';

export interface UsedMap {
  /** bytes of the partition */
  size: number;
  /** sorted, disjoint, never adjacent */
  extents: Extent[];
}

/** `usedmap` and the version; specified in README.md */
const MAGIC = Buffer.from('usedmap\x01', 'latin1');
const HEADER_BYTES = 24;
const MAX_EXTENTS = 4 * 1024 * 1024;
const MAX_PLAIN = HEADER_BYTES + MAX_EXTENTS * 16;
const LEVEL = 9;

/**
 * Sort, join and clip extents to `size` bytes. Where there would be more than `limit` of them, small gaps
 * are filled until there are not: more counts as used, never less.
 */
export const normaliseExtents = (
  extents: readonly Extent[],
  size: number,
  limit: number = MAX_EXTENTS,
): Extent[] => {
  const sorted = extents
    .filter(({ offset, length }) => length > 0 && offset < size)
    .toSorted((a, b) => a.offset - b.offset);
  let joined = join(sorted, size, 0);
  for (let gap = 4096; joined.length > limit; gap *= 2) joined = join(joined, size, gap);
  return joined;
};

/**
 * The bytes of a `pN.map` file: what the filesystem uses of a partition of `size` bytes.
 *
 * @throws ImagingError IMAGE_INVALID: the extents are not normalised
 */
export const encodeMap = (extents: readonly Extent[], size: number): Uint8Array => {
  checkExtents(extents, size);
  const bytes: number[] = [];
  let end = 0;
  for (const { offset, length } of extents) {
    pushVarint(bytes, offset - end);
    pushVarint(bytes, length);
    end = offset + length;
  }
  const plain = Buffer.alloc(HEADER_BYTES + bytes.length);
  plain.set(MAGIC);
  plain.writeBigUInt64LE(BigInt(size), 8);
  plain.writeBigUInt64LE(BigInt(extents.length), 16);
  plain.set(bytes, HEADER_BYTES);
  const frame = new Uint8Array(frameLimit(plain.length));
  return frame.slice(0, compressFrame(plain, frame, LEVEL));
};

/**
 * Read a `pN.map` file. Strict and bounded.
 *
 * @throws ImagingError IMAGE_INVALID
 */
export const decodeMap = (frame: Uint8Array): UsedMap => {
  const plain = decompress(frame);
  if (plain.length < HEADER_BYTES || !plain.subarray(0, 8).equals(MAGIC))
    throw invalid('it is not a used map');
  const size = Number(plain.readBigUInt64LE(8));
  const count = Number(plain.readBigUInt64LE(16));
  if (count > MAX_EXTENTS || count * 2 > plain.length) throw invalid(`${count} extents cannot be in it`);
  const extents: Extent[] = [];
  const reader = { bytes: plain, at: HEADER_BYTES };
  let end = 0;
  for (let number = 0; number < count; number += 1) {
    const offset = end + readVarint(reader);
    const length = readVarint(reader);
    extents.push({ offset, length });
    end = offset + length;
  }
  if (reader.at !== plain.length) throw invalid('there are bytes after the last extent');
  checkExtents(extents, size);
  return { size, extents };
};

/** Zero what `extents` (sorted, disjoint) do not cover in `buffer`, which begins at `offset`. */
export const zeroUnused = (buffer: Uint8Array, offset: number, extents: readonly Extent[]): void => {
  let at = 0;
  for (const extent of extents) {
    const from = extent.offset - offset;
    const to = from + extent.length;
    if (to <= at) continue;
    if (from >= buffer.length) break;
    if (from > at) buffer.fill(0, at, from);
    at = to;
  }
  if (at < buffer.length) buffer.fill(0, at);
};

const join = (sorted: readonly Extent[], size: number, gap: number): Extent[] => {
  const joined: Extent[] = [];
  for (const { offset, length } of sorted) {
    const from = Math.max(0, offset);
    const end = Math.min(size, offset + length);
    if (end <= from) continue;
    const last = joined.at(-1);
    if (last && from <= last.offset + last.length + gap) {
      last.length = Math.max(last.offset + last.length, end) - last.offset;
    } else joined.push({ offset: from, length: end - from });
  }
  return joined;
};

const checkExtents = (extents: readonly Extent[], size: number): void => {
  if (!Number.isSafeInteger(size) || size < 1) throw invalid(`size ${size} is not a size`);
  let end = -1;
  for (const { offset, length } of extents) {
    const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && length > 0;
    if (!whole || offset <= end || offset < 0 || offset + length > size) {
      throw invalid('its extents are not in order, overlap, or lie outside the partition');
    }
    end = offset + length;
  }
};

// unsigned LEB128; plain arithmetic, since sizes pass 2^32 and bit operators do not
const pushVarint = (bytes: number[], value: number): void => {
  let rest = value;
  while (rest >= 128) {
    bytes.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  bytes.push(rest);
};

const readVarint = (reader: { bytes: Uint8Array; at: number }): number => {
  let value = 0;
  for (let scale = 1; scale <= 2 ** 49; scale *= 128) {
    const byte = reader.bytes[reader.at];
    if (byte === undefined) throw invalid('it is cut off');
    reader.at += 1;
    value += (byte % 128) * scale;
    if (byte < 128) {
      // one way only to write each number, so that equal maps are equal files
      if (byte === 0 && scale > 1) throw invalid('a number is written with leading zeros');
      return value;
    }
  }
  throw invalid('a number is too large');
};

const decompress = (frame: Uint8Array): Buffer => {
  try {
    const size = binding.getFrameContentSize(frame);
    if (size === null || size > MAX_PLAIN) throw new Error('it does not state a possible size');
    if (binding.findFrameCompressedSize(frame) !== frame.length) throw new Error('bytes after the frame');
    const plain = Buffer.alloc(size);
    if (binding.decompress(plain, frame) !== size) throw new Error('it ends early');
    return plain;
  } catch (error) {
    throw invalid(`its frame does not decompress (${error instanceof Error ? error.message : error})`);
  }
};

const invalid = (reason: string): ImagingError =>
  new ImagingError('IMAGE_INVALID', `Cannot use the used map: ${reason}`);
