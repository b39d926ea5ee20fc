import { probe } from '../../filesystem/probe.ts';
import type { Volume } from '../volume.ts';
import { openBitLocker } from './open.ts';
import { refuseBitLocker } from './refuse.ts';

export interface ClearSidesOptions {
  keys: readonly string[];
  /** what cannot be opened stays as it is instead of being refused; without a key, all of it */
  raw: boolean;
  signal: AbortSignal;
  /** takes the clear sides: dispose after the last read */
  held: AsyncDisposableStack;
}

/**
 * The same volumes, with the clear side's device for every one that is BitLocker's and can be opened.
 *
 * @throws ImagingError UNLOCK_FAILED: one cannot
 */
export const clearSides = async (
  volumes: readonly Volume[],
  { keys, raw, signal, held }: ClearSidesOptions,
): Promise<Volume[]> => {
  const sides: Volume[] = [];
  for (const volume of volumes) {
    const { type } = await probe(volume.device, { signal });
    if (type !== 'BitLocker' || (raw && keys.length === 0)) {
      sides.push(volume);
      continue;
    }
    const opened = await openBitLocker(volume.device, volume.size, { keys, signal });
    if (typeof opened === 'string' && !raw) throw refuseBitLocker(volume, opened);
    sides.push(typeof opened === 'string' ? volume : { ...volume, device: held.use(opened).path });
  }
  return sides;
};
