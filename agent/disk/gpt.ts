import { crc32 } from 'node:zlib';
import { hasCode, ImagingError } from '../errors.ts';
import { readAt, writeAt } from './device-io.ts';

// UEFI specification 2.10, section 5.3: offsets in the header and in an entry, little-endian
const SIGNATURE = 'EFI PART';
const HEADER = {
  size: 12,
  crc: 16,
  own: 24,
  entries: 72,
  count: 80,
  entrySize: 84,
  entriesCrc: 88,
} as const;
const NAME = { offset: 56, bytes: 72 } as const;

/** What a table with 128 entries of 128 bytes takes: 16 KiB before the first usable sector, and again at the end. */
export const GPT_ENTRIES_BYTES = 128 * 128;

/** First usable byte, and first byte behind the usable ones, of a disk with 128 GPT entries. */
export const gptUsable = (size: number, sectorSize: number): { start: number; end: number } => {
  const entries = Math.ceil(GPT_ENTRIES_BYTES / sectorSize) * sectorSize;
  return {
    start: 2 * sectorSize + entries,
    end: Math.floor(size / sectorSize) * sectorSize - sectorSize - entries,
  };
};

/** The longest name that an entry holds: 36 UTF-16 units. */
export const GPT_NAME_UNITS = NAME.bytes / 2;

/**
 * Partition names straight from the primary table, by number, and what is wrong with the backup. sfdisk 2.38
 * leaves names out of its JSON that the C locale cannot print, and goes on with the backup of a damaged primary
 * table; Linux does not, so that such a disk has no partitions for anybody else.
 *
 * @throws ImagingError DISK_READ_FAILED, LAYOUT_UNSUPPORTED (no sound primary table)
 */
export const readGptNames = async (
  path: string,
  size: number,
  sectorSize: number,
): Promise<{ names: Map<number, string>; warnings: string[] }> => {
  const backup = await readCopy(path, sectorSize, backupAt(size, sectorSize));
  const primary = await readCopy(path, sectorSize, sectorSize);
  if (primary instanceof ImagingError) {
    throw new ImagingError(
      'LAYOUT_UNSUPPORTED',
      backup instanceof ImagingError
        ? `Cannot use ${path}: its GPT is damaged, the primary copy and the backup`
        : `Cannot use ${path}: its primary GPT is damaged. The backup is sound: "sgdisk -e" on the disk makes the primary anew from it`,
      { cause: primary, details: { path } },
    );
  }
  const names = new Map<number, string>();
  const { entries, entrySize } = primary;
  for (let index = 0; index * entrySize < entries.length; index++) {
    const entry = entries.subarray(index * entrySize, (index + 1) * entrySize);
    // an entry without a type is unused
    if (entry.subarray(0, 16).every((byte) => byte === 0)) continue;
    const text = entry.subarray(NAME.offset, NAME.offset + NAME.bytes).toString('utf16le');
    names.set(index + 1, text.split('\0')[0] ?? '');
  }
  return { names, warnings: backup instanceof ImagingError ? [backupWarning(path)] : [] };
};

const backupWarning = (path: string): string =>
  `the backup GPT of ${path} is damaged or not at the end of the disk; the primary one is used`;

/** The damage as a value: which copy is sound decides what to say. */
const readCopy = async (path: string, sectorSize: number, at: number) => {
  try {
    return await readTableAt(path, sectorSize, at);
  } catch (error) {
    if (hasCode(error, 'LAYOUT_UNSUPPORTED') && error instanceof ImagingError) return error;
    throw error;
  }
};

const backupAt = (size: number, sectorSize: number): number =>
  (Math.floor(size / sectorSize) - 1) * sectorSize;

/**
 * Set partition names in both tables. sfdisk drops names with characters beyond U+FFFF or, in the C
 * locale, beyond ASCII, without an error.
 *
 * @throws ImagingError LAYOUT_UNSUPPORTED (a name is too long), DISK_WRITE_FAILED
 */
export const writeGptNames = async (
  path: string,
  size: number,
  sectorSize: number,
  names: ReadonlyMap<number, string>,
): Promise<void> => {
  const pieces: { offset: number; bytes: Uint8Array }[] = [];
  // backup first: were this interrupted between the two, the primary would still be sound
  for (const at of [backupAt(size, sectorSize), sectorSize]) {
    const { header, entries, entriesAt, entrySize } = await readTableAt(path, sectorSize, at);
    for (const [number, name] of names) {
      if (name.length > GPT_NAME_UNITS) {
        throw new ImagingError(
          'LAYOUT_UNSUPPORTED',
          `Cannot name partition ${number}: "${name}" is too long`,
        );
      }
      const field = entries.subarray((number - 1) * entrySize + NAME.offset).subarray(0, NAME.bytes);
      field.fill(0);
      field.write(name, 'utf16le');
    }
    header.writeUInt32LE(crc32(entries), HEADER.entriesCrc);
    header.writeUInt32LE(headerCrc(header), HEADER.crc);
    pieces.push({ offset: entriesAt, bytes: entries }, { offset: at, bytes: header });
  }
  await writeAt(path, pieces);
};

/** Whether the protective MBR also describes other partitions (hybrid MBR: Boot Camp, some ISO sticks). */
export const isHybridMbr = (firstSector: Uint8Array): boolean => {
  const types = [0, 1, 2, 3].map((index) => firstSector[446 + index * 16 + 4] ?? 0);
  return types.includes(0xee) && types.some((type) => type !== 0 && type !== 0xee);
};

/** One of the two copies, with both its checksums checked. */
const readTableAt = async (path: string, sectorSize: number, at: number) => {
  const header = await readAt(path, at, sectorSize);
  const unsound = (reason: string) =>
    new ImagingError('LAYOUT_UNSUPPORTED', `Cannot read the GPT of ${path} at byte ${at}: ${reason}`);
  if (header.toString('latin1', 0, 8) !== SIGNATURE) throw unsound('no signature');
  const headerSize = header.readUInt32LE(HEADER.size);
  if (headerSize < 92 || headerSize > sectorSize) throw unsound('wrong header size');
  if (headerCrc(header) !== header.readUInt32LE(HEADER.crc)) throw unsound('header checksum');
  const count = header.readUInt32LE(HEADER.count);
  const entrySize = header.readUInt32LE(HEADER.entrySize);
  if (count > 1024 || entrySize < 128 || entrySize > 4096) throw unsound('wrong entry count or size');
  const entriesAt = Number(header.readBigUInt64LE(HEADER.entries)) * sectorSize;
  const entries = await readAt(path, entriesAt, count * entrySize);
  if (crc32(entries) !== header.readUInt32LE(HEADER.entriesCrc)) throw unsound('entries checksum');
  return { header, entries, entriesAt, entrySize };
};

/** The checksum covers the header with its own field as zero. */
const headerCrc = (header: Buffer): number => {
  const copy = Buffer.from(header.subarray(0, header.readUInt32LE(HEADER.size)));
  copy.writeUInt32LE(0, HEADER.crc);
  return crc32(copy);
};
