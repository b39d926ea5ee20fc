import { createHash } from 'node:crypto';
import { constants, createReadStream } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';

/** fsync of a file or folder. */
export const syncPath = async (path: string): Promise<void> => {
  const handle = await open(path, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
};

/** Write a file so that after a crash it is there whole or not at all. The folder is not synced here. */
export const writeWhole = async (path: string, text: string): Promise<void> => {
  const handle = await open(`${path}.new`, 'w', 0o644);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(`${path}.new`, path);
};

/** SHA-256 in lower-case hex. */
export const hashBytes = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** SHA-256 in lower-case hex and size in bytes. */
export const hashFile = async (path: string): Promise<{ sha256: string; size: number }> => {
  const hash = createHash('sha256');
  let size = 0;
  await pipeline(createReadStream(path, { highWaterMark: 1024 * 1024 }), async (source) => {
    for await (const part of source as AsyncIterable<Buffer>) {
      size += part.length;
      hash.update(part);
    }
  });
  return { sha256: hash.digest('hex'), size };
};
