import { statfs } from 'node:fs/promises';
import { ImagingError } from '../../agent/errors.ts';
import type { State } from '../state.ts';

/**
 * Refuse before the disk is full to the last byte: the database on it must always be able to write.
 * `bytes` is what is about to be stored. What an upload will take in the end cannot be known before: chunks
 * that are there already take nothing.
 *
 * @throws ImagingError STORE_FULL with the bytes that are free and that are kept back
 */
export const requireSpace = async (state: State, bytes: number): Promise<void> => {
  const { reserveBytes } = state.settings;
  // the chunks may lie on a disk of their own
  for (const folder of [state.paths.root, state.paths.chunks]) {
    const { bavail, bsize } = await statfs(folder);
    const free = bavail * bsize;
    if (free - bytes >= reserveBytes) continue;
    const missing = reserveBytes + bytes - free;
    throw new ImagingError(
      'STORE_FULL',
      `Cannot store ${bytes} bytes: ${free} are free, ${reserveBytes} are kept back, ${missing} are missing`,
      { details: { free, reserve: reserveBytes, needed: bytes, missing } },
    );
  }
};
