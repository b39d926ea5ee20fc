import { createReadStream } from 'node:fs';
import { open, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import test from 'ava';
import { build } from 'esbuild';
import { run } from '../../agent/process/run.ts';
import { folderOf, MIB } from './image-helpers.ts';

test('capture and deploy of any size stay within 512 MiB, with eight workers', async (t) => {
  const folder = await folderOf(t);
  // more than the limit, and nothing of it compresses: every byte passes through memory as it is
  const size = 700 * MIB;
  const random = createReadStream('/dev/urandom', { end: size - 1, highWaterMark: 4 * MIB });
  await pipeline(random, (await open(join(folder, 'source'), 'w')).createWriteStream());
  await writeFile(join(folder, 'target'), '');
  await truncate(join(folder, 'target'), size);
  const program = await bundle(folder);
  const { stdout } = await run(process.execPath, [program, folder, String(size)], { timeoutMs: 240_000 });
  const mebibytes = Number(stdout);
  t.true(mebibytes > 50 && mebibytes <= 512, `${mebibytes} MiB`);
  await run('cmp', [join(folder, 'source'), join(folder, 'target')]);
});

/** as the agent is shipped: without type stripping, the worker beside the main file */
const bundle = async (folder: string): Promise<string> => {
  const root = join(import.meta.dirname, '..', '..');
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'));
  await build({
    entryPoints: {
      main: join(import.meta.dirname, 'image-memory-program.ts'),
      worker: join(root, 'agent', 'image', 'worker.ts'),
    },
    outdir: folder,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    external: ['zstd-napi', 'zstd-napi/*'],
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
  });
  return join(folder, 'main.mjs');
};
