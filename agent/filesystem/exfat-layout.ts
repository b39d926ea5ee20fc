import { readAt } from '../disk/device-io.ts';
import { ImagingError } from '../errors.ts';
import type { Extent } from '../image/extent.ts';

const MIB = 1024 * 1024;
const FIRST_CLUSTER = 2;
const LAST_CLUSTER = 0xfffffff7;
const ENTRY_BYTES = 32;
const BITMAP_ENTRY = 0x81;
const END_OF_FOLDER = 0;

export interface ExfatBootSector {
  volumeBytes: number;
  fatOffset: number;
  fatBytes: number;
  /** first byte of cluster 2 */
  heapOffset: number;
  clusters: number;
  clusterBytes: number;
  rootCluster: number;
  /** two on TexFAT, which nobody but Windows CE writes */
  fats: number;
  failing: boolean;
}

/**
 * Main boot sector. Layout: Microsoft's exFAT specification, section 3.1.
 *
 * @throws ImagingError FILESYSTEM_CHECK_FAILED
 */
export const parseExfatBootSector = (sector: Buffer): ExfatBootSector => {
  const [sectorShift, clusterShift] = [sector.readUInt8(108), sector.readUInt8(109)];
  if (sector.toString('latin1', 3, 11) !== 'EXFAT   ' || sectorShift < 9 || sectorShift > 12) {
    throw damaged('its boot sector is not one');
  }
  const bytes = (sectors: number): number => sectors * 2 ** sectorShift;
  const flags = sector.readUInt16LE(106);
  return {
    volumeBytes: bytes(Number(sector.readBigUInt64LE(72))),
    fatOffset: bytes(sector.readUInt32LE(80)),
    fatBytes: bytes(sector.readUInt32LE(84)),
    heapOffset: bytes(sector.readUInt32LE(88)),
    clusters: sector.readUInt32LE(92),
    rootCluster: sector.readUInt32LE(96),
    clusterBytes: 2 ** Math.min(sectorShift + clusterShift, 40),
    fats: sector.readUInt8(110),
    failing: (flags & 4) !== 0,
  };
};

/**
 * What an exFAT uses, from its allocation bitmap: boot regions and FAT, then every cluster whose bit is
 * set.
 *
 * @throws ImagingError FILESYSTEM_CHECK_FAILED, DISK_READ_FAILED
 */
export const readExfatLayout = async (device: string, boot: ExfatBootSector): Promise<Extent[]> => {
  const bitmap = await findBitmap(device, boot);
  const extents: Extent[] = [{ offset: 0, length: boot.heapOffset }];
  let first = 0;
  let left = Math.ceil(boot.clusters / 8);
  for await (const cluster of chain(device, boot, bitmap.cluster, Math.ceil(left / boot.clusterBytes))) {
    const bytes = await readCluster(device, boot, cluster, Math.min(left, boot.clusterBytes));
    for (const { offset, length } of setBits(bytes)) {
      const at = first + offset;
      const count = Math.min(length, boot.clusters - at);
      if (count > 0)
        extents.push({ offset: boot.heapOffset + at * boot.clusterBytes, length: count * boot.clusterBytes });
    }
    first += bytes.length * 8;
    left -= bytes.length;
  }
  if (left > 0) throw damaged('its allocation bitmap ends early');
  return extents;
};

/** Runs of set bits, the lowest bit of a byte first. */
export const setBits = (bytes: Uint8Array): Extent[] => {
  const runs: Extent[] = [];
  let start = -1;
  for (let index = 0; index <= bytes.length; index += 1) {
    const byte = bytes[index] ?? 0;
    if ((byte === 0xff && start >= 0) || (byte === 0 && start < 0)) continue;
    for (let bit = 0; bit < 8; bit += 1) {
      const set = (byte & (1 << bit)) !== 0;
      if (set && start < 0) start = index * 8 + bit;
      if (set || start < 0) continue;
      runs.push({ offset: start, length: index * 8 + bit - start });
      start = -1;
    }
  }
  return runs;
};

const findBitmap = async (device: string, boot: ExfatBootSector): Promise<{ cluster: number }> => {
  // the root folder holds a few hundred entries at most before its end; a chain that does not end is damage
  for await (const cluster of chain(device, boot, boot.rootCluster, 4096)) {
    const bytes = await readCluster(device, boot, cluster, boot.clusterBytes);
    for (let at = 0; at < bytes.length; at += ENTRY_BYTES) {
      const type = bytes.readUInt8(at);
      if (type === END_OF_FOLDER) throw damaged('it has no allocation bitmap');
      if (type !== BITMAP_ENTRY) continue;
      if (Number(bytes.readBigUInt64LE(at + 24)) < Math.ceil(boot.clusters / 8)) {
        throw damaged('its allocation bitmap is too small');
      }
      return { cluster: bytes.readUInt32LE(at + 20) };
    }
  }
  throw damaged('it has no allocation bitmap');
};

/** Clusters from `first` on, as the FAT links them, at most `limit`. */
async function* chain(
  device: string,
  boot: ExfatBootSector,
  first: number,
  limit: number,
): AsyncGenerator<number> {
  let cluster = first;
  for (let count = 0; count < limit && cluster <= LAST_CLUSTER - 1; count += 1) {
    if (cluster < FIRST_CLUSTER || cluster >= boot.clusters + FIRST_CLUSTER) {
      throw damaged(`its FAT leads to cluster ${cluster}`);
    }
    yield cluster;
    cluster = (await readAt(device, boot.fatOffset + cluster * 4, 4)).readUInt32LE(0);
  }
}

const readCluster = async (
  device: string,
  boot: ExfatBootSector,
  cluster: number,
  length: number,
): Promise<Buffer> => {
  if (length > 32 * MIB) throw damaged('its clusters are larger than 32 MiB');
  return await readAt(device, boot.heapOffset + (cluster - FIRST_CLUSTER) * boot.clusterBytes, length);
};

const damaged = (reason: string): ImagingError =>
  new ImagingError('FILESYSTEM_CHECK_FAILED', `Cannot trust this exFAT: ${reason}`);
