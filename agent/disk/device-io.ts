import { type FileHandle, open } from 'node:fs/promises';
import { ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';

/**
 * Exactly `length` bytes at `offset` of a device, for tables and signatures (bulk data has its own
 * engine).
 *
 * @throws ImagingError DISK_READ_FAILED
 */
export const readAt = async (path: string, offset: number, length: number): Promise<Buffer> => {
  try {
    await using file = await open(path, 'r');
    return await readFully(file, offset, length);
  } catch (cause) {
    throw new ImagingError('DISK_READ_FAILED', `Cannot read ${path} at ${offset}: ${reasonOf(cause)}`, {
      details: { path, offset, length },
      cause,
    });
  }
};

/**
 * Write these pieces and make them durable (fdatasync).
 *
 * @throws ImagingError DISK_WRITE_FAILED
 */
export const writeAt = async (
  path: string,
  pieces: readonly { offset: number; bytes: Uint8Array }[],
): Promise<void> => {
  try {
    await using file = await open(path, 'r+');
    for (const { offset, bytes } of pieces) {
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await file.write(bytes, done, bytes.length - done, offset + done);
        if (bytesWritten === 0) throw new Error('wrote 0 bytes');
        done += bytesWritten;
      }
    }
    await file.datasync();
  } catch (cause) {
    throw new ImagingError('DISK_WRITE_FAILED', `Cannot write to ${path}: ${reasonOf(cause)}`, {
      details: { path, offsets: pieces.map(({ offset }) => offset) },
      cause,
    });
  }
};

/**
 * Write back and drop the page cache of one node. A whole disk and its partitions have separate
 * caches that do not see each other's writes, so flush where the writer changes.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const flushDevice = async (path: string, options: { signal?: AbortSignal } = {}): Promise<void> => {
  // a slow disk may hold gigabytes of dirty pages
  await run('blockdev', ['--flushbufs', path], { ...options, timeoutMs: 30 * 60_000 });
};

const readFully = async (file: FileHandle, offset: number, length: number): Promise<Buffer> => {
  const buffer = Buffer.alloc(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(buffer, done, length - done, offset + done);
    if (bytesRead === 0) throw new Error(`ends at ${offset + done}`);
    done += bytesRead;
  }
  return buffer;
};

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
