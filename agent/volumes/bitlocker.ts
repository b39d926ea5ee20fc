import { ImagingError, isImagingError } from '../errors.ts';
import { run } from '../process/run.ts';

export type BitLockerState = 'clear key' | 'locked' | 'unknown';

/**
 * Whether a BitLocker volume's key lies in the clear beside it (protection suspended), as `cryptsetup
 * bitlkDump` prints the protectors. Pure.
 */
export const bitLockerState = (dump: string): BitLockerState => {
  const protections = [...dump.matchAll(/^\s*Protection:\s*(.+?)\s*$/gm)].map((match) => match[1] ?? '');
  if (protections.length === 0) return 'unknown';
  return protections.some((text) => /clear key/i.test(text)) ? 'clear key' : 'locked';
};

const spoken: Readonly<Record<BitLockerState, string>> = {
  'clear key': 'its protection is suspended, the data is encrypted all the same',
  locked: 'it is locked',
  unknown: 'its state cannot be told',
};

/** The refusal of a BitLocker volume: what it is, what to run in Windows, and how large a raw copy would be. */
export const refuseBitLocker = async (
  device: string,
  name: string,
  size: number,
  signal: AbortSignal,
): Promise<ImagingError> => {
  const state = bitLockerState(await dumpOf(device, signal));
  return new ImagingError(
    'UNLOCK_FAILED',
    `Cannot capture ${name}: it is encrypted with BitLocker (${spoken[state]}). Run in Windows: manage-bde -off C: (with this volume's letter), and wait until manage-bde -status says "Fully Decrypted". Or ask for a raw copy with the task's option "raw": ${size} bytes, which only this machine's keys open`,
    { details: { volume: name, state, rawBytes: size } },
  );
};

/** A header that cryptsetup cannot read is still BitLocker's. */
const dumpOf = async (device: string, signal: AbortSignal): Promise<string> => {
  try {
    return (await run('cryptsetup', ['bitlkDump', device], { signal })).stdout;
  } catch (error) {
    if (!isImagingError(error) || error.code !== 'TOOL_FAILED') throw error;
    return '';
  }
};
