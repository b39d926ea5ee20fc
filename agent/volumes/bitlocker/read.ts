import { readAt } from '../../disk/device-io.ts';
import { type BitLockerVolume, METADATA_SIZE, parseBootSector, parseMetadata } from './on-disk.ts';
import { segmentsOf } from './segments.ts';
import { isKnownCipher } from './unlock.ts';

/** what Windows leaves behind the last whole cluster of a partition, and more */
const TAIL = 1024 * 1024;

/**
 * What a BitLocker volume says of itself, from the first sound copy of its metadata; or why it cannot be read as a
 * whole clear volume, to go on after "it is encrypted with BitLocker, and".
 *
 * @throws ImagingError DISK_READ_FAILED
 */
export const readBitLocker = async (device: string, size: number): Promise<BitLockerVolume | string> => {
  const boot = parseBootSector(await readAt(device, 0, 512));
  if (typeof boot === 'string') return boot;
  for (const place of boot.metadata) {
    if (place + METADATA_SIZE > size) continue;
    const volume = parseMetadata(await readAt(device, place, METADATA_SIZE), boot);
    if (volume === null) continue;
    return typeof volume === 'string' ? volume : judge(volume, size);
  }
  return 'no copy of its metadata is sound';
};

const judge = (volume: BitLockerVolume, size: number): BitLockerVolume | string => {
  const { encryptedBytes, encryption, volumeKey } = volume;
  if (!isKnownCipher(encryption)) return `its cipher (0x${encryption.toString(16)}) is not known`;
  // what lies behind would be taken for encrypted
  if (encryptedBytes > size || size - encryptedBytes >= TAIL) {
    return `${encryptedBytes} bytes of its ${size} are encrypted`;
  }
  return volumeKey === null || segmentsOf(volume, size) === null ? 'its metadata contradicts itself' : volume;
};
