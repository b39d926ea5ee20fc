import { constants, type FileHandle, open } from 'node:fs/promises';
import { ImagingError } from '../../../agent/errors.ts';

/** Bytes at `from` of one file that go to `to` of another. */
export interface Piece {
  from: number;
  to: number;
  length: number;
}

const STEP = 4 * 1024 * 1024;

/**
 * Copy pieces of a file into another one of `size` bytes, which is made where there is none; the rest of it are
 * holes. Not flushed: both lie in the scratch space.
 *
 * @throws ImagingError DISK_READ_FAILED: the source ends before a piece does
 */
export const copyPieces = async (
  source: string,
  { file, size }: { file: string; size: number },
  pieces: readonly Piece[],
  signal: AbortSignal,
): Promise<void> => {
  await using input: FileHandle = await open(source, 'r');
  await using output: FileHandle = await open(file, constants.O_RDWR | constants.O_CREAT, 0o600);
  await output.truncate(size);
  const buffer = Buffer.alloc(STEP);
  for (const { from, to, length } of pieces) {
    for (let done = 0; done < length; ) {
      signal.throwIfAborted();
      const { bytesRead } = await input.read(buffer, 0, Math.min(STEP, length - done), from + done);
      if (bytesRead === 0) {
        throw new ImagingError('DISK_READ_FAILED', `Cannot read ${source}: it ends at ${from + done}`);
      }
      await writeFully(output, buffer.subarray(0, bytesRead), to + done);
      done += bytesRead;
    }
  }
};

const writeFully = async (output: FileHandle, bytes: Buffer, at: number): Promise<void> => {
  for (let done = 0; done < bytes.length; ) {
    done += (await output.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
  }
};
