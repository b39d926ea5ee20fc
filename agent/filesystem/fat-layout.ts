import { readAt } from '../disk/device-io.ts';
import { ImagingError } from '../errors.ts';
import type { Extent } from '../image/extent.ts';

const MIB = 1024 * 1024;

export interface FatGeometry {
  bits: 12 | 16 | 32;
  volumeBytes: number;
  fatOffset: number;
  fatBytes: number;
  /** first byte of cluster 2; before it lie boot sectors, FATs and the root folder of FAT12 and FAT16 */
  dataOffset: number;
  clusterBytes: number;
  clusters: number;
}

/**
 * BIOS parameter block. Layout and the rule that the number of clusters alone says which FAT it is:
 * Microsoft's FAT specification 1.03.
 *
 * @throws ImagingError FILESYSTEM_CHECK_FAILED
 */
export const parseFatBootSector = (sector: Buffer): FatGeometry => {
  const sectorBytes = sector.readUInt16LE(11);
  const clusterBytes = sectorBytes * sector.readUInt8(13);
  const reserved = sector.readUInt16LE(14);
  const fatSectors = sector.readUInt16LE(22) || sector.readUInt32LE(36);
  const total = sector.readUInt16LE(19) || sector.readUInt32LE(32);
  const rootSectors = Math.ceil((sector.readUInt16LE(17) * 32) / Math.max(1, sectorBytes));
  const dataSector = reserved + sector.readUInt8(16) * fatSectors + rootSectors;
  const clusters = Math.floor(((total - dataSector) * sectorBytes) / Math.max(1, clusterBytes));
  const known = [512, 1024, 2048, 4096].includes(sectorBytes);
  if (!known || clusterBytes === 0 || reserved === 0 || fatSectors === 0 || clusters < 1) {
    throw damaged('its boot sector is not one');
  }
  const bits = clusters < 4085 ? 12 : clusters < 65525 ? 16 : 32;
  const fatBytes = fatSectors * sectorBytes;
  if (fatBytes < Math.ceil(((clusters + 2) * bits) / 8)) throw damaged('its FAT is too small');
  return {
    bits,
    volumeBytes: total * sectorBytes,
    fatOffset: reserved * sectorBytes,
    fatBytes,
    dataOffset: dataSector * sectorBytes,
    clusterBytes,
    clusters,
  };
};

/**
 * What a FAT uses: everything before the first cluster, and every cluster that its first FAT does not call
 * free or bad.
 *
 * @throws ImagingError DISK_READ_FAILED
 */
export const readFatLayout = async (device: string, geometry: FatGeometry): Promise<Extent[]> => {
  const { bits, fatOffset, dataOffset, clusterBytes, clusters } = geometry;
  const extents: Extent[] = [{ offset: 0, length: dataOffset }];
  const end = Math.ceil(((clusters + 2) * bits) / 8);
  // whole entries: three bytes hold two of FAT12
  const step = 3 * MIB;
  const bad = (2 ** bits - 9) & 0x0fffffff;
  for (let at = 0; at < end; at += step) {
    const bytes = await readAt(device, fatOffset + at, Math.min(step, end - at));
    const first = (at * 8) / bits;
    const count = Math.floor((bytes.length * 8) / bits);
    for (let n = 0; n < count; n += 1) {
      const cluster = first + n - 2;
      const entry = entryAt(bytes, n, bits);
      if (entry === 0 || entry === bad || cluster < 0 || cluster >= clusters) continue;
      const offset = dataOffset + cluster * clusterBytes;
      const last = extents.at(-1);
      if (last && last.offset + last.length === offset) last.length += clusterBytes;
      else extents.push({ offset, length: clusterBytes });
    }
  }
  return extents;
};

const entryAt = (bytes: Buffer, n: number, bits: 12 | 16 | 32): number => {
  if (bits === 32) return bytes.readUInt32LE(n * 4) & 0x0fffffff;
  if (bits === 16) return bytes.readUInt16LE(n * 2);
  const at = Math.floor(n * 1.5);
  const pair = (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8);
  return n % 2 === 0 ? pair & 0xfff : pair >> 4;
};

const damaged = (reason: string): ImagingError =>
  new ImagingError('FILESYSTEM_CHECK_FAILED', `Cannot trust this FAT: ${reason}`);
