import { createReadStream, createWriteStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';

/** Files one after the other, each padded to 4 bytes as the kernel wants archives to start. */
export const concatenate = async (files: readonly string[], to: string): Promise<void> => {
  await pipeline(async function* () {
    for (const file of files) {
      yield* createReadStream(file, { highWaterMark: 1024 * 1024 });
      const rest = (await stat(file)).size % 4;
      if (rest > 0) yield Buffer.alloc(4 - rest);
    }
  }, createWriteStream(to));
};
