import { createDecipheriv, randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { open, readFile, stat } from 'node:fs/promises';
import test, { type ExecutionContext } from 'ava';
import { lockDisk } from '../../agent/disk/lock.ts';
import { findSignatures } from '../../agent/disk/signatures.ts';
import { openDevice } from '../../agent/image/device.ts';
import { createPool } from '../../agent/image/pool.ts';
import { run } from '../../agent/process/run.ts';
import type { WipedDisk } from '../../agent/protocol/index.ts';
import { overwrite } from '../../agent/wipe/pass.ts';
import { fillPattern } from '../../agent/wipe/pattern.ts';
import { EDGE_BYTES } from '../../agent/wipe/plan.ts';
import { type WipeOptions, wipeDisks } from '../../agent/wipe/wipe.ts';
import { missedOf } from '../../agent/wipe/wipe-disk.ts';
import { attachLoop, diskOf, hashOf, type LoopDevice, MIB } from './loop-device.ts';
import { sickFile } from './sick-file.ts';

const KEY = '5a'.repeat(32);
const PLANTED = Buffer.from('what the former owner left here');

/** A table, a filesystem, and a line that can be searched for, every MiB and at both ends. */
const fill = async ({ path, file }: LoopDevice): Promise<void> => {
  await run('sfdisk', ['--quiet', path], { input: 'label: gpt\nsize=4MiB\n,\n' });
  await run('partx', ['--delete', path], { okExitCodes: [0, 1] });
  await using handle = await open(path, 'r+');
  const { size } = await stat(file);
  for (let at = 3 * MIB; at < size - MIB; at += MIB) await handle.write(PLANTED, 0, PLANTED.length, at + 77);
  await handle.sync();
  await run('blockdev', ['--flushbufs', path]);
};

const count = async (file: string): Promise<number> => {
  const bytes = await readFile(file);
  let found = 0;
  for (let at = bytes.indexOf(PLANTED); at >= 0; at = bytes.indexOf(PLANTED, at + 1)) found += 1;
  return found;
};

const wipe = async (
  loops: readonly LoopDevice[],
  options: Partial<WipeOptions> = {},
): Promise<{ disks: WipedDisk[]; done: number; total: number }> => {
  let [done, total] = [0, 0];
  const disks = await wipeDisks({
    choices: await Promise.all(loops.map(async ({ path }) => ({ disk: await diskOf(path), skip: null }))),
    ...{ mode: 'normal', passes: 3, verify: 'full', purge: 'no', signal: new AbortController().signal },
    steps: {
      log: () => undefined,
      warn: () => undefined,
      purging: () => ({ share: () => undefined }),
      overwriting: (bytes) => {
        total = bytes;
        return {
          add: (more) => {
            done += more;
          },
          say: () => undefined,
        };
      },
    },
    ...options,
  });
  return { disks, done, total };
};

const succeeded = (t: ExecutionContext, disk: WipedDisk | undefined, status: WipedDisk['status']): void => {
  t.is(disk?.status, status, disk?.reason ?? '');
  t.is(disk?.error, null);
  t.is(disk?.verification?.wrong.sectors, 0);
};

test('normal: every byte is the pass’s own, on disks of odd sizes, with sectors of 512 and 4096 bytes, and tiny ones', async (t) => {
  for (const [size, sectorSize] of [
    [9 * MIB + 12_288, 4096],
    [11 * MIB + 512, 512],
    [4096, 512],
    [4096, 4096],
  ] as const) {
    const loop = await attachLoop(t, size, { sectorSize });
    if (size > MIB) await fill(loop);
    const { disks, done, total } = await wipe([loop]);
    succeeded(t, disks[0], 'cleared-verified');
    t.is(disks[0]?.verification?.bytes, size);
    t.deepEqual([done, total], [2 * size, 2 * size]);
    t.is(await count(loop.file), 0);
    // the key of the report, and nothing of ours, makes the disk zeros again
    const key = Buffer.from(disks[0]?.verification?.key ?? '', 'hex');
    const plain = createDecipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(await readFile(loop.file));
    t.true(plain.every((byte) => byte === 0));
    t.deepEqual(await findSignatures(loop.path), []);
  }
});

test('fast: both ends are zeros and no signature is left; between them everything is as it was', async (t) => {
  const loop = await attachLoop(t, 100 * MIB);
  await fill(loop);
  const before = await readFile(loop.file);
  const { disks } = await wipe([loop], { mode: 'fast' });
  succeeded(t, disks[0], 'signatures-removed');
  const after = await readFile(loop.file);
  const edge = Buffer.alloc(EDGE_BYTES);
  t.true(after.subarray(0, EDGE_BYTES).equals(edge));
  t.true(after.subarray(-EDGE_BYTES).equals(edge));
  t.true(after.subarray(EDGE_BYTES, -EDGE_BYTES).equals(before.subarray(EDGE_BYTES, -EDGE_BYTES)));
  t.deepEqual(await findSignatures(loop.path), []);
  t.is((await diskOf(loop.path)).partitions.length, 0, 'the kernel knows of no partition either');
});

test('full: as many passes as asked for, and two disks at once have patterns of their own', async (t) => {
  const loops = [await attachLoop(t, 24 * MIB), await attachLoop(t, 24 * MIB)];
  const { disks } = await wipe(loops, { mode: 'full', passes: 4 });
  for (const disk of disks) {
    succeeded(t, disk, 'cleared-verified');
    t.is(disk.passes.length, 4);
    t.true(disk.passes.every(({ bytes }) => bytes === 24 * MIB));
  }
  t.not(await hashOf(loops[0]?.file ?? ''), await hashOf(loops[1]?.file ?? ''));
});

test('a sample reads a tenth and both ends of a larger disk', async (t) => {
  const size = 160 * MIB;
  const loop = await attachLoop(t, size);
  const { disks } = await wipe([loop], { verify: 'sample' });
  succeeded(t, disks[0], 'cleared-verified');
  const { method, bytes = 0, places = 0 } = disks[0]?.verification ?? {};
  t.is(method, 'sample');
  t.true(bytes >= size / 10 && bytes < size / 4, String(bytes));
  t.true(places > 500);
});

test('a disk that is in use is not touched, and the others are wiped all the same', async (t) => {
  const [used, free] = [await attachLoop(t, 24 * MIB), await attachLoop(t, 24 * MIB)];
  await run('mke2fs', ['-q', used.path]);
  const before = await hashOf(used.file);
  const { unlock } = await lockDisk(used.path);
  t.teardown(unlock);
  const { disks } = await wipe([used, free]);
  t.is(disks[0]?.status, 'failed');
  t.is(disks[0]?.error?.code, 'DISK_IN_USE');
  t.is(await hashOf(used.file), before);
  succeeded(t, disks[1], 'cleared-verified');
});

test('a cancel ends it within seconds, and the disk counts as interrupted', async (t) => {
  const loop = await attachLoop(t, 2048 * MIB);
  const cancel = new AbortController();
  const started = performance.now();
  setTimeout(() => cancel.abort(new Error('enough')), 300);
  const { disks } = await wipe([loop], { mode: 'full', passes: 30, signal: cancel.signal });
  t.is(disks[0]?.status, 'interrupted');
  t.true(performance.now() - started < 10_000);
});

test('random bytes that fail to compare are found: a pass that was overwritten by somebody else is no success', async (t) => {
  const loop = await attachLoop(t, 40 * MIB);
  let tampered = false;
  const { disks } = await wipe([loop], {
    steps: {
      log: () => undefined,
      warn: () => undefined,
      purging: () => ({ share: () => undefined }),
      overwriting: () => ({
        add: () => undefined,
        say: (text) => {
          if (!text.includes('reading back') || tampered) return;
          tampered = true;
          // behind the device's back: the file itself
          spawnWrite(loop.file, 20 * MIB + 5);
        },
      }),
    },
  });
  t.is(disks[0]?.status, 'failed');
  t.is(disks[0]?.error?.code, 'READ_BACK_MISMATCH');
  t.deepEqual(disks[0]?.verification?.wrong.ranges, [{ lba: (20 * MIB) / 512, sectors: 1 }]);
});

const spawnWrite = (file: string, at: number): void => {
  const fd = openSync(file, 'r+');
  writeSync(fd, randomBytes(16), 0, 16, at);
  fsyncSync(fd);
  closeSync(fd);
};

/** One pass over a sick file. */
const passOver = async (
  t: ExecutionContext,
  bytes: number,
  sectors: readonly number[] | 'all',
  deadSeconds = 60,
) => {
  const { file } = await sickFile(t, bytes, sectors, 'write');
  const pool = createPool({ workers: 2, memory: 65_536 });
  t.teardown(() => pool.close());
  const device = await openDevice(file, { write: true, start: 0, size: bytes, chunkSize: MIB });
  try {
    const done = await overwrite({
      device,
      pool,
      ranges: [{ start: 0, size: bytes }],
      key: KEY,
      deadSeconds,
    });
    return { ...done, bytes: await readFile(file) };
  } finally {
    await device.close();
  }
};

test('bad sectors: everything else is overwritten, and they are named, to the sector', async (t) => {
  const size = 12 * MIB;
  const sectors = [10_256, 18_431, 18_432, 24_575];
  const done = await passOver(t, size, sectors);
  t.is(done.stopped, null);
  t.deepEqual(missedOf(done.missed, 512).ranges, [
    { lba: 10_256, sectors: 1 },
    { lba: 18_431, sectors: 2 },
    { lba: 24_575, sectors: 1 },
  ]);
  t.is(done.written, size - 4 * 512);
  const expected = Buffer.alloc(size);
  fillPattern(expected, KEY, 0);
  for (const sector of sectors) expected.fill(0, sector * 512, sector * 512 + 512);
  t.true(done.bytes.equals(expected));
});

test('a disk that takes nothing any more is given up, and what it did not take is named to its end', async (t) => {
  const done = await passOver(t, 16 * MIB, 'all', 0.2);
  t.is(done.stopped?.code, 'DISK_WRITE_FAILED');
  t.is(done.written, 0);
  t.deepEqual(done.missed, [{ offset: 0, length: 16 * MIB }]);
});
