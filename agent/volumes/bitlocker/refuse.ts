import { ImagingError } from '../../errors.ts';
import type { Volume } from '../volume.ts';

/** The refusal of a BitLocker volume: why, what to do about it, and how large a raw copy would be. */
export const refuseBitLocker = ({ name, size }: Pick<Volume, 'name' | 'size'>, why: string): ImagingError =>
  new ImagingError(
    'UNLOCK_FAILED',
    `Cannot capture ${name}: it is encrypted with BitLocker, and ${why}. Give the task its recovery password (--unlock-stdin), or run in Windows, with this volume's letter: manage-bde -protectors -disable C: (suspends protection), or manage-bde -off C: and wait until manage-bde -status says "Fully Decrypted". Or ask for a raw copy with the task's option "raw": ${size} bytes, which only this machine's keys open`,
    { details: { volume: name, why, rawBytes: size } },
  );
