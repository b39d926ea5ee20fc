import { flushDevice, readAt, writeAt } from '../disk/device-io.ts';
import { ImagingError } from '../errors.ts';
import { deviceSize } from './device-size.ts';

/** BIOS parameter block: bytes a sector at 11, "hidden sectors" (those before the partition) at 28. */
const SECTOR_BYTES = 11;
const HIDDEN_SECTORS = 28;
/** FAT32: sector of the backup boot sector at 50, and what says that it is FAT32 at 82 */
const FAT32_BACKUP = 50;
const FAT32_NAME = 82;

/**
 * Tell an NTFS where its partition begins, in sectors of the disk: boot code of BIOS machines adds this
 * field to every address, and Windows expects it right. Boot sector and its copy in the last sector of the
 * partition, read back. A start beyond 2^32 sectors does not fit, and no BIOS would reach it: nothing is
 * written then.
 *
 * @throws ImagingError FILESYSTEM_CHECK_FAILED: no NTFS, or of other sectors; READ_BACK_MISMATCH
 */
export const setNtfsHiddenSectors = async (
  device: string,
  startSector: number,
  signal: AbortSignal,
): Promise<void> => {
  const boot = await readNtfsBoot(device);
  if (startSector > 0xffffffff) return;
  boot.writeUInt32LE(startSector, HIDDEN_SECTORS);
  await writeAndReadBack(device, [{ offset: 0, bytes: boot }], signal);
  await writeNtfsBackup(device, signal);
};

/**
 * The boot sector's copy in the last sector of the partition, which Windows and its repair tools look for
 * there.
 *
 * @throws ImagingError FILESYSTEM_CHECK_FAILED, READ_BACK_MISMATCH
 */
export const writeNtfsBackup = async (device: string, signal: AbortSignal): Promise<void> => {
  const boot = await readNtfsBoot(device);
  const offset = (await deviceSize(device, signal)) - boot.length;
  await writeAndReadBack(device, [{ offset, bytes: boot }], signal);
};

/**
 * The same for FAT12, FAT16 and FAT32 (and FAT32's backup boot sector): DOS and syslinux boot code use it.
 *
 * @throws ImagingError FILESYSTEM_CHECK_FAILED, READ_BACK_MISMATCH
 */
export const setFatHiddenSectors = async (
  device: string,
  startSector: number,
  signal: AbortSignal,
): Promise<void> => {
  const boot = await readAt(device, 0, 512);
  const sectorBytes = boot.readUInt16LE(SECTOR_BYTES);
  if (boot.readUInt16LE(510) !== 0xaa55 || ![512, 1024, 2048, 4096].includes(sectorBytes)) {
    throw notOne(device, 'FAT');
  }
  if (startSector > 0xffffffff) return;
  const field = Buffer.alloc(4);
  field.writeUInt32LE(startSector);
  const places = [HIDDEN_SECTORS];
  if (boot.toString('latin1', FAT32_NAME, FAT32_NAME + 5) === 'FAT32') {
    const backup = boot.readUInt16LE(FAT32_BACKUP);
    if (backup > 0 && backup < 32) places.push(backup * sectorBytes + HIDDEN_SECTORS);
  }
  await writeAndReadBack(
    device,
    places.map((offset) => ({ offset, bytes: field })),
    signal,
  );
};

const readNtfsBoot = async (device: string): Promise<Buffer> => {
  const first = await readAt(device, 0, 512);
  const sectorBytes = first.readUInt16LE(SECTOR_BYTES);
  if (first.toString('latin1', 3, 11) !== 'NTFS    ' || ![512, 1024, 2048, 4096].includes(sectorBytes)) {
    throw notOne(device, 'NTFS');
  }
  return await readAt(device, 0, sectorBytes);
};

const writeAndReadBack = async (
  device: string,
  pieces: readonly { offset: number; bytes: Buffer }[],
  signal: AbortSignal,
): Promise<void> => {
  await writeAt(device, pieces);
  await flushDevice(device, { signal });
  for (const { offset, bytes } of pieces) {
    if ((await readAt(device, offset, bytes.length)).equals(bytes)) continue;
    throw new ImagingError(
      'READ_BACK_MISMATCH',
      `Cannot set the boot sector of ${device}: it reads back otherwise`,
      {
        details: { device, offset },
      },
    );
  }
};

const notOne = (device: string, name: string): ImagingError =>
  new ImagingError(
    'FILESYSTEM_CHECK_FAILED',
    `Cannot set the boot sector of ${device}: it is not one of ${name}`,
  );
