import { crc32 } from 'node:zlib';
import { ImagingError } from '../../errors.ts';
import type { ByteRange } from '../../protocol/index.ts';

/**
 * Where LVM2 keeps what on a physical volume. Source: lvm2 2.03, lib/label/label.h,
 * lib/format_text/layout.h. All numbers are little-endian; offsets in bytes from the start of the volume.
 */
export interface PvLabel {
  /** sector of 512 bytes that holds the label: 0 to 3 */
  sector: number;
  /** 32 characters without dashes */
  uuid: string;
  /** what the volume was told to be, bytes; 0 for "as large as its device" */
  size: number;
  /** where extents lie; a size of 0 means to the end */
  dataAreas: ByteRange[];
  metadataAreas: ByteRange[];
  bootAreas: ByteRange[];
}

export const SECTOR = 512;
/** the label is in one of the first four sectors */
export const LABEL_BYTES = 4 * SECTOR;
const LABEL_HEADER = 32;
const MAGIC = ' LVM2 x[5A%r0N*>';
const FORMAT_VERSION = 1;
const MAX_AREAS = 8;
/** lvm2's own limit for one text is far below; a text is read into memory whole */
export const MAX_TEXT = 16 * 1024 * 1024;
const RAW_LOCN_IGNORED = 1;

/** lvm2's checksum: CRC-32 with a start value of its own and no final inversion (lib/misc/crc.c). */
export const lvmCrc = (bytes: Uint8Array): number => ~crc32(bytes, ~0xf597a6cf >>> 0) >>> 0;

/**
 * The label in the first 2048 bytes of a physical volume; null where there is none.
 *
 * @throws ImagingError LAYOUT_UNSUPPORTED: there is one, and it contradicts itself
 */
export const parseLabel = (bytes: Buffer): PvLabel | null => {
  for (let sector = 0; (sector + 1) * SECTOR <= bytes.length && sector < 4; sector++) {
    const label = bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR);
    if (label.toString('latin1', 0, 8) !== 'LABELONE') continue;
    if (label.toString('latin1', 24, 32) !== 'LVM2 001') continue;
    if (label.readBigUInt64LE(8) !== BigInt(sector)) throw damaged('its label is for another sector');
    if (label.readUInt32LE(16) !== lvmCrc(label.subarray(20))) throw damaged("its label's checksum is wrong");
    return { sector, ...parsePvHeader(label, label.readUInt32LE(20)) };
  }
  return null;
};

const parsePvHeader = (label: Buffer, start: number): Omit<PvLabel, 'sector'> => {
  if (start < LABEL_HEADER || start + 40 > SECTOR) throw damaged('its header is outside its label');
  const uuid = label.toString('latin1', start, start + 32);
  if (!/^[0-9A-Za-z]{32}$/.test(uuid)) throw damaged('its UUID is not one');
  const size = number(label, start + 32);
  const data = parseAreas(label, start + 40);
  const metadata = parseAreas(label, data.end);
  const areas = { dataAreas: data.areas, metadataAreas: metadata.areas };
  // an extension (version, flags, bootloader areas) follows in everything since 2.02.100
  const extended = metadata.end + 8 <= SECTOR && label.readUInt32LE(metadata.end) > 0;
  return { uuid, size, ...areas, bootAreas: extended ? parseAreas(label, metadata.end + 8).areas : [] };
};

/**
 * The sector of a label for a volume of another size, its metadata areas in other places: as many as there are now.
 * All else stays as it is.
 */
export const encodeLabel = (
  sector: Buffer,
  { size, metadataAreas }: Pick<PvLabel, 'size' | 'metadataAreas'>,
): Buffer => {
  const label = Buffer.from(sector);
  const start = label.readUInt32LE(20);
  label.writeBigUInt64LE(BigInt(size), start + 32);
  const areas = parseAreas(label, start + 40).end;
  for (const [at, area] of metadataAreas.entries()) {
    label.writeBigUInt64LE(BigInt(area.start), areas + at * 16);
    label.writeBigUInt64LE(BigInt(area.size), areas + at * 16 + 8);
  }
  label.writeUInt32LE(lvmCrc(label.subarray(20)), 16);
  return label;
};

/** A list that ends with a pair of zeros. */
const parseAreas = (label: Buffer, from: number): { areas: ByteRange[]; end: number } => {
  const areas: ByteRange[] = [];
  for (let at = from; at + 16 <= SECTOR; at += 16) {
    const area = { start: number(label, at), size: number(label, at + 8) };
    if (area.start === 0) return { areas, end: at + 16 };
    if (areas.push(area) > MAX_AREAS) break;
  }
  throw damaged('its list of areas has no end');
};

/** Where the text lies in its metadata area: it may wrap around the end. */
export interface TextPlace {
  offset: number;
  size: number;
  checksum: number;
}

export interface MdaHeader {
  /** bytes on the volume */
  start: number;
  size: number;
  /** the committed text; null where there is none, or this copy is set aside */
  text: TextPlace | null;
}

/**
 * The first 512 bytes of a metadata area.
 *
 * @throws ImagingError LAYOUT_UNSUPPORTED
 */
export const parseMdaHeader = (sector: Buffer, area: ByteRange): MdaHeader => {
  if (sector.length !== SECTOR || sector.readUInt32LE(0) !== lvmCrc(sector.subarray(4))) {
    throw damaged("its metadata area's checksum is wrong");
  }
  if (sector.toString('latin1', 4, 20) !== MAGIC || sector.readUInt32LE(20) !== FORMAT_VERSION) {
    throw damaged('its metadata area is of an unknown kind');
  }
  const [start, size] = [number(sector, 24), number(sector, 32)];
  if (start !== area.start || size !== area.size) throw damaged('its metadata area is another one');
  const [offset, length] = [number(sector, 40), number(sector, 48)];
  const ignored = (sector.readUInt32LE(60) & RAW_LOCN_IGNORED) !== 0;
  if (offset === 0 || length === 0 || ignored) return { start, size, text: null };
  if (offset < SECTOR || offset >= size || length > size - SECTOR || length > MAX_TEXT) {
    throw damaged('its metadata lies outside its area');
  }
  return { start, size, text: { offset, size: length, checksum: sector.readUInt32LE(56) } };
};

/** The one or two ranges of the volume that hold a text, in order. */
export const textRanges = (header: MdaHeader, { offset, size }: Omit<TextPlace, 'checksum'>): ByteRange[] => {
  const first = Math.min(size, header.size - offset);
  const ranges = [{ start: header.start + offset, size: first }];
  // the sector of the header is not part of the ring
  if (size > first) ranges.push({ start: header.start + SECTOR, size: size - first });
  return ranges;
};

/** @throws ImagingError LAYOUT_UNSUPPORTED: not the text that the header names */
export const checkText = (bytes: Buffer, place: TextPlace): string => {
  if (bytes.length !== place.size || lvmCrc(bytes) !== place.checksum) {
    throw damaged("its metadata's checksum is wrong");
  }
  return bytes.toString('utf8').replace(/\0+$/, '');
};

/**
 * The bytes to write so that `text` is the committed metadata of this area: behind the text that is there
 * now, rounded up to a sector, as lvm2 does, so that a cut between the two leaves the old one. Write the
 * pieces of the text first and make them durable, the header's after that.
 *
 * @throws ImagingError LAYOUT_UNSUPPORTED: the area cannot hold both
 */
export const encodeMetadata = (
  header: MdaHeader,
  text: string,
): { text: { offset: number; bytes: Buffer }[]; header: { offset: number; bytes: Buffer } } => {
  const bytes = Buffer.from(`${text}\0`);
  const ring = header.size - SECTOR;
  const now = header.text;
  const after = now ? Math.ceil((now.offset - SECTOR + now.size) / SECTOR) * SECTOR : 0;
  const offset = SECTOR + (after % ring);
  const taken = now ? Math.ceil(now.size / SECTOR) * SECTOR : 0;
  if (bytes.length + taken > ring || bytes.length > MAX_TEXT) {
    throw damaged(`its metadata area has no room for ${bytes.length} bytes more`);
  }
  let done = 0;
  const pieces = textRanges(header, { offset, size: bytes.length }).map(({ start, size }) => {
    const piece = { offset: start, bytes: bytes.subarray(done, done + size) };
    done += size;
    return piece;
  });
  const sector = Buffer.alloc(SECTOR);
  sector.write(MAGIC, 4, 'latin1');
  sector.writeUInt32LE(FORMAT_VERSION, 20);
  sector.writeBigUInt64LE(BigInt(header.start), 24);
  sector.writeBigUInt64LE(BigInt(header.size), 32);
  sector.writeBigUInt64LE(BigInt(offset), 40);
  sector.writeBigUInt64LE(BigInt(bytes.length), 48);
  sector.writeUInt32LE(lvmCrc(bytes), 56);
  sector.writeUInt32LE(lvmCrc(sector.subarray(4)), 0);
  return { text: pieces, header: { offset: header.start, bytes: sector } };
};

/** Dashes as lvm2 prints them: 6-4-4-4-4-4-6. */
export const dashed = (uuid: string): string =>
  uuid.replace(/^(.{6})(.{4})(.{4})(.{4})(.{4})(.{4})(.{6})$/, '$1-$2-$3-$4-$5-$6-$7');

const number = (bytes: Buffer, at: number): number => {
  const value = bytes.readBigUInt64LE(at);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw damaged('it has an offset beyond any disk');
  return Number(value);
};

const damaged = (reason: string): ImagingError =>
  new ImagingError('LAYOUT_UNSUPPORTED', `Cannot read the LVM physical volume: ${reason}`);
