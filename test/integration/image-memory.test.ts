import { createReadStream } from 'node:fs';
import { open, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import test from 'ava';
import { build } from 'esbuild';
import { run } from '../../agent/process/run.ts';
import { bytesOf } from '../agent/image/helpers.ts';
import { folderOf, fsck, loopDevice, MIB, mounted } from './image-helpers.ts';

test('capture and deploy of any size stay within 512 MiB, with eight workers', async (t) => {
  const folder = await folderOf(t);
  // more than the limit, and nothing of it compresses: every byte passes through memory as it is
  const size = 700 * MIB;
  const random = createReadStream('/dev/urandom', { end: size - 1, highWaterMark: 4 * MIB });
  await pipeline(random, (await open(join(folder, 'source'), 'w')).createWriteStream());
  await writeFile(join(folder, 'target'), '');
  await truncate(join(folder, 'target'), size);
  const program = await bundle(folder, 'image-memory-program.ts');
  const { stdout } = await run(process.execPath, [program, folder, String(size)], { timeoutMs: 240_000 });
  const mebibytes = Number(stdout);
  t.true(mebibytes > 50 && mebibytes <= 512, `${mebibytes} MiB`);
  await run('cmp', [join(folder, 'source'), join(folder, 'target')]);
});

test('a sparse disk of 2 TiB costs what its used blocks cost, in reads and in memory', async (t) => {
  const folder = await folderOf(t);
  const size = 2 ** 41;
  const device = await loopDevice(t, join(folder, 'source'), size);
  // few inodes and a small journal: mkfs's own tables would be 32 GiB of used zeros
  await run('mkfs.ext4', ['-q', '-F', '-T', 'largefile4', '-m', '0', '-J', 'size=16', device]);
  await mounted(device, folder, async (root) => {
    for (let number = 0; number < 20; number += 1) {
      await writeFile(join(root, `file-${number}`), bytesOf(number, 2 * MIB));
    }
  });
  await writeFile(join(folder, 'target'), '');
  await truncate(join(folder, 'target'), size);
  const program = await bundle(folder, 'image-huge-program.ts');
  const { stdout } = await run(process.execPath, [program, folder, device, String(size)], {
    timeoutMs: 240_000,
  });
  const facts = JSON.parse(stdout) as Record<string, number>;
  const { hashed = 0, usedChunks = 0, bytesRead = 0, bytesUsed = 0, entries, peakMiB = 0 } = facts;
  t.is(entries, 2 ** 21, 'the grid covers all of it');
  t.is(hashed, usedChunks, 'each used chunk is read once, no other');
  t.true(usedChunks < 3000, `${usedChunks} used chunks`);
  // gaps of less than 64 KiB are read along
  t.true(bytesRead >= bytesUsed && bytesRead <= bytesUsed * 1.1, `${bytesRead} read of ${bytesUsed} used`);
  t.true((facts['bytesWritten'] ?? 0) <= usedChunks * 1024 * 1024);
  t.true(peakMiB > 50 && peakMiB <= 512, `${peakMiB} MiB`);
  await fsck(join(folder, 'target'));
});

/** as the agent is shipped: without type stripping, the worker beside the main file */
const bundle = async (folder: string, program: string): Promise<string> => {
  const root = join(import.meta.dirname, '..', '..');
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'));
  await build({
    entryPoints: {
      main: join(import.meta.dirname, program),
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
