import { join } from 'node:path';
import { captureRange } from '../../agent/image/capture.ts';
import { deployRange } from '../../agent/image/deploy.ts';
import { openLocalStore } from '../../agent/image/local-store.ts';
import { createPool } from '../../agent/image/pool.ts';

// A process of its own, so that its memory is only the engine's: captures `source` in `folder` and deploys it.
const [folder = '', bytes = '0'] = process.argv.slice(2);
const size = Number(bytes);
const chunkSize = 1024 * 1024;
const pool = createPool({ workers: 8 });
const sink = openLocalStore(join(folder, 'chunks'), pool);
const extents = [{ offset: 0, length: size }];
const device = join(folder, 'source');
const { index, map } = await captureRange({
  device,
  start: 0,
  size,
  extents,
  chunkSize,
  level: 1,
  sink,
  pool,
});
// through fetch, as from a server: frames pass through the main thread
const source = { fetch: sink.fetch };
await deployRange({ device: join(folder, 'target'), start: 0, index, map, chunkSize, source, pool });
await pool.close();
console.log(process.resourceUsage().maxRSS / 1024);
