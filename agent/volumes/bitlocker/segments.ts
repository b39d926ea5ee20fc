import { type BitLockerVolume, METADATA_SIZE } from './on-disk.ts';

/** A run of the clear volume. Bytes. */
export interface Segment {
  start: number;
  length: number;
  /** where its ciphertext lies, null for zeros; ciphers count sectors from the volume's first, by this place */
  from: number | null;
}

/**
 * The clear volume, from the first byte to the last: the filesystem's beginning lies elsewhere, since BitLocker's own
 * first sectors are in its place; metadata and that place itself read as zeros, as in Windows. Null where they are in
 * each other's way. Pure.
 */
export const segmentsOf = (
  { metadata, header, sectorSize }: Pick<BitLockerVolume, 'metadata' | 'header' | 'sectorSize'>,
  size: number,
): Segment[] | null => {
  if (header.length === 0) return null;
  const zeros = [...metadata.map((start) => ({ start, length: METADATA_SIZE }))];
  zeros.push({ start: header.offset, length: header.length });
  zeros.sort((a, b) => a.start - b.start);
  const segments: Segment[] = [{ start: 0, length: header.length, from: header.offset }];
  let at = header.length;
  for (const { start, length } of zeros) {
    if (start < at || start % sectorSize !== 0 || length % sectorSize !== 0) return null;
    if (start > at) segments.push({ start: at, length: start - at, from: at });
    segments.push({ start, length, from: null });
    at = start + length;
  }
  if (at > size || size % sectorSize !== 0) return null;
  if (at < size) segments.push({ start: at, length: size - at, from: at });
  return segments;
};
