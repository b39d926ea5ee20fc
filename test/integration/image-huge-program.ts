import { hash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ext } from '../../agent/filesystem/ext.ts';
import { decodeCaibx } from '../../agent/image/caibx.ts';
import { captureRange } from '../../agent/image/capture.ts';
import { deployRange } from '../../agent/image/deploy.ts';
import { chunkSizeFor } from '../../agent/image/grid.ts';
import { openLocalStore } from '../../agent/image/local-store.ts';
import { createPool } from '../../agent/image/pool.ts';

// A process of its own, so that its memory is only the engine's: map, capture and deploy of a device that is far larger
// than what it holds. Prints what was done and the peak of its memory.
const [folder = '', device = '', bytes = '0'] = process.argv.slice(2);
const size = Number(bytes);
const chunkSize = chunkSizeFor(size);
const { signal } = new AbortController();
const { extents } = await ext.usage(device, size, signal);
const pool = createPool({ workers: 8 });
const store = openLocalStore(join(folder, 'chunks'), pool);
let hashed = 0;
const counted = {
  ...pool,
  run: ((kind, job) => {
    if (kind === 'hash') hashed += 1;
    return pool.run(kind, job);
  }) as typeof pool.run,
};
const range = { device, start: 0, size, extents, chunkSize, level: 1, sink: store, pool: counted };
const { index, map, stats } = await captureRange(range);
// as a task does before it publishes
hash('sha256', index);
const entries = decodeCaibx(index).ids.length;
const rss = (): number => Math.round(process.resourceUsage().maxRSS / 1024);
const afterCapture = rss();
const target = join(folder, 'target');
const source = { fetch: store.fetch };
const image = { device: target, start: 0, index, map, chunkSize, source, pool };
const { stats: written } = await deployRange(image);
await pool.close();
await writeFile(join(folder, 'p1.caibx'), index);
console.log(
  JSON.stringify({
    hashed,
    usedChunks: stats.chunks,
    bytesRead: stats.bytesRead,
    bytesUsed: extents.reduce((sum, { length }) => sum + length, 0),
    bytesWritten: written.bytesWritten,
    entries,
    afterCapture,
    peakMiB: process.resourceUsage().maxRSS / 1024,
  }),
);
