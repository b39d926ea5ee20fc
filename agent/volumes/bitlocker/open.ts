import { mapDevice } from '../../disk/device-mapper.ts';
import type { BitLockerVolume } from './on-disk.ts';
import { readBitLocker } from './read.ts';
import { segmentsOf } from './segments.ts';
import { suspendedKey, unlockedKey, type VolumeKey } from './unlock.ts';

/** The clear side of a BitLocker volume, as long as the volume and read-only. Disposing closes it. */
export interface OpenedBitLocker extends AsyncDisposable {
  path: string;
}

export interface OpenBitLockerOptions {
  /** recovery passwords and passwords */
  keys: readonly string[];
  signal: AbortSignal;
}

/**
 * Open a BitLocker volume: by itself where its protection is suspended, else with the first key that fits; or why
 * that cannot be, to go on after "it is encrypted with BitLocker, and".
 *
 * The keys are ours to open, the sectors dm-crypt's. cryptsetup 2.7.5 makes the same mapping, but not of a volume with
 * a clear key, whatever else it has ("Activation of partially decrypted BITLK device is not supported"), nor with a
 * password beyond ASCII. dislocker would open them, but what the disk cannot read comes out of it as zeros, without an
 * error (0.7.2, src/inouts/sectors.c).
 *
 * @throws ImagingError TOOL_FAILED, DISK_READ_FAILED
 */
export const openBitLocker = async (
  device: string,
  size: number,
  { keys, signal }: OpenBitLockerOptions,
): Promise<OpenedBitLocker | string> => {
  const volume = await readBitLocker(device, size);
  if (typeof volume === 'string') return volume;
  const key = suspendedKey(volume) ?? (await unlockedKey(volume, keys, signal));
  if (!key) return whyLocked(volume, keys);
  return await mapDevice(tableOf(volume, { device, size, key }), { readOnly: true, signal });
};

const whyLocked = ({ protectors }: BitLockerVolume, keys: readonly string[]): string => {
  const kinds = new Set(protectors.map(({ kind }) => kind));
  const opens = `what opens it: ${[...kinds].join(', ') || 'nothing'}`;
  if (kinds.has('clear key')) return `the key that lies beside it does not open it (${opens})`;
  if (!kinds.has('recovery password') && !kinds.has('password')) {
    return `it has neither a recovery password nor a password (${opens})`;
  }
  return keys.length === 0
    ? `it is locked, and the task brings no key (${opens})`
    : `none of the task's keys opens it (${opens})`;
};

/** Lines of a device-mapper table (Documentation/admin-guide/device-mapper/dm-crypt.rst), in sectors of 512 bytes. */
const tableOf = (
  volume: BitLockerVolume,
  { device, size, key: { cipher, key } }: { device: string; size: number; key: VolumeKey },
): string[] => {
  const options = volume.sectorSize === 512 ? '' : ` 2 sector_size:${volume.sectorSize} iv_large_sectors`;
  return (segmentsOf(volume, size) ?? []).map(({ start, length, from }) => {
    const range = `${start / 512} ${length / 512}`;
    if (from === null) return `${range} zero`;
    // the IV is of the place of the ciphertext
    return `${range} crypt ${cipher} ${key.toString('hex')} ${from / 512} ${device} ${from / 512}${options}`;
  });
};
