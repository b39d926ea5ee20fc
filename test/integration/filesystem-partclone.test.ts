import { mkdtemp, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { driverFor } from '../../agent/filesystem/index.ts';
import { probe } from '../../agent/filesystem/probe.ts';
import { captureRange } from '../../agent/image/capture.ts';
import { openLocalStore } from '../../agent/image/local-store.ts';
import { createPool } from '../../agent/image/pool.ts';
import { run } from '../../agent/process/run.ts';
import { type FilesystemKind, kinds } from './filesystem-kinds.ts';
import { partcloneBlocks } from './filesystem-sweep.ts';
import { hashOf, MIB } from './loop-device.ts';

const { signal } = new AbortController();

/** In memory: these tests read and write some gigabytes. */
const scratch = async (t: ExecutionContext): Promise<string> => {
  const folder = await mkdtemp('/dev/shm/partclone-');
  t.teardown(async () => await rm(folder, { recursive: true, force: true }));
  return folder;
};

const attach = async (t: ExecutionContext, file: string, size: number): Promise<string> => {
  await using handle = await open(file, 'a');
  await handle.truncate(size);
  const { stdout } = await run('losetup', ['--find', '--show', file]);
  const device = stdout.trim();
  t.teardown(async () => {
    await run('blockdev', ['--setrw', device]);
    await run('losetup', ['--detach', device]);
  });
  await run('blockdev', ['--setrw', device]);
  return device;
};

/** Our engine into a store, casync out of it. */
const throughCasync = async (kind: FilesystemKind, device: string, folder: string): Promise<string> => {
  const driver = driverFor(kind.type);
  if (!driver) throw new Error(`no driver for ${kind.type}`);
  await driver.check(device, signal);
  const { extents } = await driver.usage(device, kind.size, signal);
  const pool = createPool({ memory: 64 * MIB });
  try {
    const sink = openLocalStore(join(folder, 'chunks'), pool);
    const range = { start: 0, size: kind.size, chunkSize: MIB, level: 1 };
    const captured = await captureRange({ ...range, device, extents, sink, pool });
    await writeFile(join(folder, 'p1.caibx'), captured.index);
  } finally {
    await pool.close();
  }
  const out = join(folder, 'casync.img');
  await run('casync', ['extract', `--store=${folder}/chunks`, join(folder, 'p1.caibx'), out]);
  return out;
};

/** partclone's own image and its restore: what Clonezilla and FOG do. */
const throughPartclone = async (kind: FilesystemKind, device: string, folder: string): Promise<string> => {
  const [image, out] = [join(folder, 'partclone.image'), join(folder, 'partclone.img')];
  const common = ['-L', join(folder, 'log'), '-f', '1', '-q'];
  await run(`partclone.${kind.tool}`, ['-c', '-a0', '-s', device, '-o', image, ...common]);
  await using target = await open(out, 'w');
  await target.truncate(kind.size);
  await run('partclone.restore', ['-C', '-W', '-s', image, '-O', out, ...common]);
  return out;
};

for (const kind of kinds) {
  test(`${kind.name}: what casync extracts and what partclone clones agree on every used block`, async (t) => {
    const folder = await scratch(t);
    const device = await attach(t, join(folder, 'source'), kind.size);
    await kind.make(device);
    await run('blockdev', ['--flushbufs', device]);
    await run('blockdev', ['--setro', device]);
    const before = await hashOf(device);
    const [ours, theirs] = [
      await throughCasync(kind, device, folder),
      await throughPartclone(kind, device, folder),
    ];
    t.is((await stat(ours)).size, kind.size);
    const blocks = await partcloneBlocks(kind.tool, device);
    t.is(await hashOf(device), before, 'nothing was written to the source');
    const [a, b] = [await readFile(ours), await readFile(theirs)];
    let compared = 0;
    for (const { offset, length } of blocks) {
      const end = offset + length;
      t.true(a.subarray(offset, end).equals(b.subarray(offset, end)), `used bytes at ${offset}`);
      compared += length;
    }
    t.true(compared > MIB && compared < kind.size * 0.6, `${compared} bytes compared`);
    // and the filesystem's own tools find nothing amiss in it
    const extracted = await attach(t, ours, kind.size);
    await driverFor(kind.type)?.check(extracted, signal);
    t.deepEqual(await probe(extracted), await probe(device));
  });
}
