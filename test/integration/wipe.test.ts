import { createDecipheriv, randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { mkdtemp, open, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { lockDisk } from '../../agent/disk/lock.ts';
import { findSignatures } from '../../agent/disk/signatures.ts';
import { openDevice } from '../../agent/image/device.ts';
import { createPool } from '../../agent/image/pool.ts';
import { run } from '../../agent/process/run.ts';
import type { WipedDisk } from '../../agent/protocol/index.ts';
import { overwrite } from '../../agent/wipe/pass.ts';
import { EDGE_BYTES } from '../../agent/wipe/plan.ts';
import { type WipeOptions, wipeDisks } from '../../agent/wipe/wipe.ts';
import { attachLoop, diskOf, hashOf, type LoopDevice, MIB } from './loop-device.ts';

const PLANTED = Buffer.from('what the former owner left here');

/** A table, a filesystem, and a line that can be searched for, every MiB and at both ends. */
const fill = async ({ path, file }: LoopDevice): Promise<void> => {
  await run('sfdisk', ['--quiet', path], { input: 'label: gpt\nsize=8MiB\n,\n' });
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
    [37 * MIB + 12_288, 4096],
    [37 * MIB + 512, 512],
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
  const loop = await attachLoop(t, 200 * MIB);
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
  const size = 320 * MIB;
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

/** A disk that takes writes but for these ranges: holes of a file on a memory filesystem that is full. */
const sickDisk = async (t: ExecutionContext, bytes: number, bad: readonly [at: number, length: number][]) => {
  const folder = await mkdtemp(join(tmpdir(), 'sick-'));
  await run('mount', ['-t', 'tmpfs', '-o', `size=${bytes + MIB}`, 'tmpfs', folder]);
  t.teardown(async () => {
    await run('umount', [folder]);
    await rm(folder, { recursive: true });
  });
  const file = join(folder, 'disk.img');
  await run('truncate', ['-s', String(bytes), file]);
  let at = 0;
  for (const [start, length] of [...bad, [bytes, 0] as const]) {
    if (start > at) await run('fallocate', ['--offset', String(at), '--length', String(start - at), file]);
    at = start + length;
  }
  // the kernel counts in batches: a few pages of the holes may still be given out
  await run('dd', ['if=/dev/zero', `of=${join(folder, 'full')}`, 'bs=4096', 'status=none'], {
    okExitCodes: [1],
  });
  const path = (await run('losetup', ['--find', '--show', file])).stdout.trim();
  t.teardown(async () => {
    await run('blockdev', ['--setrw', path]);
    await run('losetup', ['--detach', path]);
  });
  await run('blockdev', ['--setrw', path]);
  return { path, file };
};

test('bad sectors: everything else is overwritten, they are named, and the disk is partially erased', async (t) => {
  const holes: [number, number][] = [
    [5 * MIB + 8192, 524_288],
    [9 * MIB - 32_768, 131_072],
    [30 * MIB, 262_144],
  ];
  const loop = await sickDisk(t, 32 * MIB, holes);
  const { disks } = await wipe([loop]);
  t.is(disks[0]?.status, 'failed');
  t.is(disks[0]?.error?.code, 'WIPE_INCOMPLETE');
  t.regex(disks[0]?.reason ?? '', /partially erased, \d+ sectors/);
  const { ranges = [], sectors = 0 } = disks[0]?.passes[0]?.missed ?? {};
  t.true(ranges.length >= 3 && sectors > 500, JSON.stringify(ranges));
  t.is(disks[0]?.passes[0]?.bytes, 32 * MIB - sectors * 512);
  // what could not be written reads as zeros, what was written is random
  const bytes = await readFile(loop.file);
  const named = new Set(
    ranges.flatMap(({ lba, sectors: n }) => Array.from({ length: n }, (_, at) => lba + at)),
  );
  const zeros = Array.from({ length: bytes.length / 512 }, (_, lba) => lba).filter((lba) =>
    bytes.subarray(lba * 512, lba * 512 + 512).every((byte) => byte === 0),
  );
  t.deepEqual([...named], zeros, 'exactly these sectors, and none behind or before them');
});

test('a disk that takes nothing any more is given up, and what it did not take is named to its end', async (t) => {
  const loop = await sickDisk(t, 32 * MIB, [[8 * MIB, 24 * MIB]]);
  const pool = createPool({ workers: 1, memory: 65_536 });
  t.teardown(() => pool.close());
  const device = await openDevice(loop.path, { write: true, start: 0, size: 32 * MIB, chunkSize: MIB });
  t.teardown(() => device.close());
  const ranges = [{ start: 0, size: 32 * MIB }];
  const done = await overwrite({ device, pool, ranges, key: 'ab'.repeat(32), deadSeconds: 0.3 });
  t.is(done.stopped?.code, 'DISK_WRITE_FAILED');
  const missed = done.missed.reduce((sum, { length }) => sum + length, 0);
  t.is(done.written + missed, 32 * MIB);
  t.true(missed > 23 * MIB);
  t.is((done.missed.at(-1)?.offset ?? 0) + (done.missed.at(-1)?.length ?? 0), 32 * MIB);
});
