import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { z } from 'zod';
import { run } from '../../../agent/process/run.ts';

const BLOCK = 1024 * 1024;
/** of `qemu-img map --output=json`, for the part used here */
const rangesSchema = z.array(z.object({ start: z.number(), length: z.number(), data: z.boolean() }));

/**
 * SHA-256 over place and content of every block that is not all zero: of 40 GB with few blocks in seconds. Where the
 * file has holes does not matter: reading alone can turn a hole into zeros for SEEK_DATA.
 */
export const hashOfSparse = async (path: string): Promise<string> => {
  const map = ['map', '-f', 'raw', '--output=json', path];
  const { stdout } = await run('qemu-img', map, { timeoutMs: 300_000 });
  await using file = await open(path, 'r');
  const hash = createHash('sha256');
  const zero = Buffer.alloc(BLOCK);
  const block = Buffer.alloc(BLOCK);
  let next = 0;
  for (const { start, length, data } of rangesSchema.parse(JSON.parse(stdout))) {
    if (!data) continue;
    const first = Math.max(next, Math.floor(start / BLOCK) * BLOCK);
    for (next = first; next < start + length; next += BLOCK) {
      const { bytesRead } = await file.read(block, 0, BLOCK, next);
      const content = block.subarray(0, bytesRead);
      if (!content.equals(zero.subarray(0, bytesRead))) hash.update(`${next} `).update(content);
    }
  }
  return hash.digest('hex');
};
