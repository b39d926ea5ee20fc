import { ImagingError } from '../errors.ts';
import type { ByteRange, ExtendedPartition } from '../protocol/index.ts';
import { readAt } from './device-io.ts';
import { extendedTypes } from './layout.ts';

/** A logical partition and its place in the chain. Bytes on the disk. */
export interface Logical extends ByteRange {
  /** from 5, in the order of the chain */
  number: number;
  bootRecord: number;
  type: string;
  bootable: boolean;
}

// a boot record has the MBR's form: four entries of 16 bytes at 446, 55 aa at 510 (T13 "EBR" has no text of its
// own; Linux block/partitions/msdos.c and util-linux libfdisk/src/dos.c agree on this)
const ENTRIES = 446;
const RECORD_BYTES = 512;
/** manifests hold 128 partitions; Linux stops after 100 links */
const LONGEST = 100;

/**
 * The logical partitions inside an extended one, in the order of their chain. Read-only.
 *
 * @throws ImagingError LAYOUT_UNSUPPORTED (damaged, endless, or of a form that Linux reads otherwise),
 *   DISK_READ_FAILED
 */
export const readChain = async (
  path: string,
  extended: ByteRange,
  sectorSize: number,
): Promise<Logical[]> => {
  const unsound = (at: number, reason: string) =>
    new ImagingError(
      'LAYOUT_UNSUPPORTED',
      `Cannot use ${path}: the chain of its logical partitions is damaged at byte ${at}: ${reason}`,
    );
  const end = extended.start + extended.size;
  const visited = new Set<number>();
  const chain: Logical[] = [];
  for (let at: number | null = extended.start; at !== null; ) {
    if (visited.has(at)) throw unsound(at, 'it leads back to here');
    if (visited.size === LONGEST) throw unsound(at, `more than ${LONGEST} links`);
    visited.add(at);
    if (at < extended.start || at + sectorSize > end) throw unsound(at, 'outside the extended partition');
    const { signed, links, data } = parseRecord(await readAt(path, at, RECORD_BYTES));
    if (!signed) throw unsound(at, 'no boot record');
    if (links.length > 1 || data.length > 1) throw unsound(at, 'a boot record with several partitions');
    const [link] = links;
    const [entry] = data;
    if (entry) {
      const start = at + entry.start * sectorSize;
      const size = entry.size * sectorSize;
      if (entry.start === 0 || start + size > end) throw unsound(at, 'a partition outside the extended one');
      const { type, bootable } = entry;
      chain.push({ number: 5 + chain.length, bootRecord: at, start, size, type, bootable });
    }
    at = link ? extended.start + link.start * sectorSize : null;
  }
  return chain;
};

/**
 * Boot records for these partitions, in the order of their numbers: each its own partition, then a link to the
 * next one. Where the container does not begin with the first one's record, an empty record there leads to it.
 * Written as fdisk does, so that a chain of fdisk's comes back byte for byte. Pure.
 */
export const chainRecords = (
  extended: ExtendedPartition,
  logical: readonly Logical[],
  sectorSize: number,
): { offset: number; bytes: Uint8Array }[] => {
  const chain = logical.toSorted((a, b) => a.number - b.number);
  const leads = chain[0]?.bootRecord === extended.start;
  const records: { at: number; own?: Logical }[] = [
    ...(leads ? [] : [{ at: extended.start }]),
    ...chain.map((own) => ({ at: own.bootRecord, own })),
  ];
  return records.map(({ at, own }, index) => {
    const bytes = Buffer.alloc(sectorSize);
    if (own) writeEntry(bytes, 0, { ...own, base: at, sectorSize });
    const next = records[index + 1];
    if (next?.own) {
      const size = next.own.start + next.own.size - next.at;
      writeEntry(bytes, 1, {
        ...{ start: next.at, size, type: '05', bootable: false },
        ...{ base: extended.start, sectorSize },
      });
    }
    bytes.writeUInt16BE(0x55aa, RECORD_BYTES - 2);
    return { offset: at, bytes };
  });
};

interface Entry {
  start: number;
  size: number;
  type: string;
  bootable: boolean;
}

const parseRecord = (record: Buffer): { signed: boolean; links: Entry[]; data: Entry[] } => {
  const entries = [0, 1, 2, 3]
    .map((index): Entry => {
      const at = ENTRIES + 16 * index;
      return {
        bootable: record[at] === 0x80,
        type: (record[at + 4] ?? 0).toString(16).padStart(2, '0'),
        start: record.readUInt32LE(at + 8),
        size: record.readUInt32LE(at + 12),
      };
    })
    .filter(({ size }) => size > 0);
  return {
    signed: record.readUInt16BE(RECORD_BYTES - 2) === 0x55aa,
    links: entries.filter(({ type }) => extendedTypes.has(type)),
    data: entries.filter(({ type }) => !extendedTypes.has(type)),
  };
};

const writeEntry = (
  record: Buffer,
  index: number,
  { start, size, type, bootable, base, sectorSize }: Entry & { base: number; sectorSize: number },
): void => {
  const at = ENTRIES + 16 * index;
  const first = start / sectorSize;
  record.writeUInt8(bootable ? 0x80 : 0, at);
  writeChs(record, at + 1, first);
  record.writeUInt8(Number.parseInt(type, 16), at + 4);
  writeChs(record, at + 5, first + size / sectorSize - 1);
  record.writeUInt32LE((start - base) / sectorSize, at + 8);
  record.writeUInt32LE(size / sectorSize, at + 12);
};

/** Cylinder, head, sector on the geometry that everybody assumes; what lies further is the last place it has. */
const writeChs = (record: Buffer, at: number, sector: number): void => {
  const [heads, sectors] = [255, 63];
  const cylinder = Math.floor(sector / (heads * sectors));
  const beyond = cylinder > 1023;
  const c = beyond ? 1023 : cylinder;
  const h = beyond ? heads - 1 : Math.floor(sector / sectors) % heads;
  const s = beyond ? sectors : (sector % sectors) + 1;
  record.set([h, s | ((c >> 2) & 0xc0), c & 0xff], at);
};
