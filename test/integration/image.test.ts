import { hash } from 'node:crypto';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { decodeCaibx } from '../../agent/image/caibx.ts';
import { captureRange } from '../../agent/image/capture.ts';
import { deployRange } from '../../agent/image/deploy.ts';
import { chunkUsage } from '../../agent/image/grid.ts';
import { openLocalStore } from '../../agent/image/local-store.ts';
import { readBack } from '../../agent/image/verify.ts';
import {
  counted,
  fileHashes,
  folderOf,
  fsck,
  loopDevice,
  MIB,
  makeExt4,
  mounted,
  poolOf,
  usedExtents,
} from './image-helpers.ts';

const chunkSize = MIB;
const size = 160 * MIB + 12 * 1024;

test('an ext4 captured and deployed elsewhere is clean and holds the same files', async (t) => {
  const folder = await folderOf(t);
  const pool = poolOf(t);
  const source = await loopDevice(t, join(folder, 'source'), size);
  await makeExt4(source, folder);
  const extents = await usedExtents(source, folder);
  const before = hash('sha256', await readFile(join(folder, 'source')));
  const store = openLocalStore(join(folder, 'chunks'), pool);
  let reported = 0;
  const common = { chunkSize, pool };
  const captured = await captureRange({
    ...common,
    device: source,
    start: 0,
    size,
    extents,
    level: 3,
    sink: store,
    onProgress: (bytes) => {
      reported += bytes;
    },
  });
  t.is(hash('sha256', await readFile(join(folder, 'source'))), before, 'the source is as it was');
  t.is(reported, captured.stats.bytesUsed);
  t.true(captured.stats.bytesRead < size);
  t.deepEqual(await store.verify(captured.ids), { damaged: [], missing: [] });
  t.is(new Set(decodeCaibx(captured.index).ids).size, captured.ids.length);

  // the partition lies behind others on the target
  const start = 5 * MIB;
  const disk = join(folder, 'target');
  const target = await loopDevice(t, disk, start + size + 7 * MIB);
  const noise = await open(disk, 'r+');
  for (let at = 0; at < start + size + 7 * MIB; at += MIB)
    await noise.write(Buffer.alloc(MIB, 0xaa), 0, MIB, at);
  await noise.close();
  const image = { ...common, index: captured.index, map: captured.map, device: target, start };
  const remote = counted(store);
  let written = 0;
  let durable: [number, number][] = [];
  const deployed = await deployRange({
    ...image,
    source: remote,
    onProgress: (bytes) => {
      written += bytes;
    },
    onDurable: (ranges) => {
      durable = ranges;
    },
  });
  t.is(written, deployed.stats.bytesUsed);
  t.deepEqual(durable, deployed.ranges);
  t.is(new Set(remote.served).size, remote.served.length, 'no chunk is fetched twice');
  await readBack({ ...image, mode: 'full' });
  await readBack({ ...image, mode: 'sample' });
  const content = join(folder, 'content');
  await copyRange(disk, content, start, size);
  const partition = await loopDevice(t, content, size);
  await fsck(partition);
  t.is(await fileHashes(partition, folder), await fileHashes(source, folder));

  const all = await readFile(disk);
  t.true(
    all.subarray(0, start).every((byte) => byte === 0xaa),
    'nothing before the partition is touched',
  );
  t.true(
    all.subarray(start + size).every((byte) => byte === 0xaa),
    'nothing behind it either',
  );
  const { used, count } = chunkUsage(extents, chunkSize, size);
  const unused = Array.from({ length: count }, (_, number) => number).find(
    (number) => !used.includes(number),
  );
  t.is(all[start + (unused ?? -1) * chunkSize], 0xaa, 'free space is not written');

  const again = await deployRange({ ...image, source: counted(store) });
  t.is(again.stats.bytesReceived, 0);
  t.is(again.stats.bytesWritten, 0);
  t.is(again.stats.chunksReused, again.stats.chunks);
});

test('a second capture sends only what changed, and its deploy fetches only that', async (t) => {
  const folder = await folderOf(t);
  const pool = poolOf(t);
  const source = await loopDevice(t, join(folder, 'source'), size);
  await makeExt4(source, folder);
  const store = openLocalStore(join(folder, 'chunks'), pool);
  const capture = async () =>
    captureRange({
      device: source,
      start: 0,
      size,
      extents: await usedExtents(source, folder),
      chunkSize,
      level: 3,
      sink: store,
      pool,
    });
  const first = await capture();
  const target = await loopDevice(t, join(folder, 'target'), size);
  await deployRange({ ...first, device: target, start: 0, chunkSize, source: store, pool });

  const unchanged = await capture();
  t.is(unchanged.stats.bytesSent, 0);
  t.deepEqual(unchanged.index, first.index);
  t.deepEqual(unchanged.map, first.map);
  t.is(unchanged.stats.chunksReused, unchanged.stats.chunks);

  await mounted(source, folder, async (root) => {
    const file = await open(join(root, 'copy', 'one'), 'r+');
    await file.write(Buffer.alloc(4096, 1), 0, 4096, 2 * MIB);
    await file.close();
  });
  const second = await capture();
  const known = new Set(first.ids);
  const fresh = second.ids.filter((id) => !known.has(id));
  t.true(fresh.length > 0 && fresh.length < 12, `${fresh.length} changed chunks`);
  t.is(second.stats.chunks - second.stats.chunksReused, fresh.length);

  // the deployed machine has been used since: free space is full of other things
  await mounted(target, folder, async (root) => {
    const file = await open(join(root, 'downloaded'), 'w');
    for (let at = 0; at < 20; at += 1) await file.write(Buffer.alloc(MIB, at));
    await file.close();
  });
  const remote = counted(store);
  const deployed = await deployRange({
    ...second,
    device: target,
    start: 0,
    chunkSize,
    source: remote,
    pool,
  });
  t.true(
    remote.served.length < deployed.stats.chunks / 3,
    `${remote.served.length} of ${deployed.stats.chunks}`,
  );
  await readBack({ ...second, device: target, start: 0, chunkSize, mode: 'full', pool });
  await fsck(target);
  t.is(await fileHashes(target, folder), await fileHashes(source, folder));
});

const copyRange = async (from: string, to: string, start: number, bytes: number): Promise<void> => {
  const [input, output] = [await open(from, 'r'), await open(to, 'w')];
  const buffer = Buffer.alloc(bytes);
  await input.read(buffer, 0, bytes, start);
  await output.writeFile(buffer);
  await Promise.all([input.close(), output.close()]);
};
