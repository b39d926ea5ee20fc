import { open } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { readTable } from '../../agent/disk/table.ts';
import { captureRange } from '../../agent/image/capture.ts';
import { openLocalStore } from '../../agent/image/local-store.ts';
import { run } from '../../agent/process/run.ts';
import type { ImagePartition, Manifest } from '../../agent/protocol/index.ts';
import type { FetchedImage } from '../../agent/tasks/deploy-fetch.ts';
import { compareDisk, describeReport } from '../../agent/tasks/verify-disk.ts';
import { folderOf, makeExt4, poolOf, usedExtents } from './image-helpers.ts';
import { attachLoop, diskOf, hashOf, MIB } from './loop-device.ts';

const CHUNK = 256 * 1024;
const START = MIB;
const SIZE = 40 * MIB;

/** A GPT disk with one ext4, and the image that a capture makes of it. */
const captured = async (t: ExecutionContext) => {
  const folder = await folderOf(t);
  const pool = poolOf(t);
  const disk = await attachLoop(t, START + SIZE + 2 * MIB);
  const input = `label: gpt\nstart=2048, size=${SIZE / 512}, type=L, name="root"\n`;
  await run('sfdisk', ['--quiet', '--no-reread', '--no-tell-kernel', disk.path], { input });
  const part = await attachLoop(t, SIZE);
  await makeExt4(part.path, folder, 20);
  await run('dd', [`if=${part.path}`, `of=${disk.path}`, 'bs=1M', 'seek=1', 'oflag=direct', 'status=none']);
  const table = await readTable(disk.path);
  const sink = openLocalStore(join(folder, 'chunks'), pool);
  const extents = await usedExtents(part.path, folder);
  const range = { device: disk.path, start: START, size: SIZE, extents, chunkSize: CHUNK };
  const { index, map } = await captureRange({ ...range, level: 1, sink, pool });
  const file = (name: string) => ({ name, size: 1, sha256: 'a'.repeat(64) });
  const partition: ImagePartition = {
    ...{ name: 'p1', number: 1, start: START, size: SIZE, role: 'os', method: 'used', reason: '' },
    ...{ type: table.partitions[0]?.type ?? '', uuid: table.partitions[0]?.uuid ?? '', label: 'root' },
    ...{
      attributes: '',
      bootRecord: null,
      contains: [],
      decryptedFrom: null,
      damaged: [],
      map: file('p1.map'),
    },
    index: { ...file('p1.caibx'), chunks: SIZE / CHUNK },
    filesystem: { type: 'ext4', uuid: '', label: '', minimumBytes: null, usedBytes: null },
  };
  const manifest: Manifest = {
    ...{ format: 1, image: 'lab', version: 3, derivedFrom: null, createdAt: '2026-01-01T00:00:00Z' },
    ...{ firmware: 'bios', chunkSize: CHUNK, os: null, tools: {} },
    disks: [
      {
        ...{ name: 'd1', size: START + SIZE + 2 * MIB, logicalSectorSize: 512, model: '', serial: '' },
        ...{ table: 'gpt', tableId: table.id, bootArea: null, extended: null, partitions: [partition] },
      },
    ],
  };
  const files = new Map([
    ['p1.caibx', index],
    ['p1.map', map],
  ]);
  const image: FetchedImage = { text: '', manifest, files };
  const { signal } = new AbortController();
  const compare = async () => compareDisk({ disk: await diskOf(disk.path), image, signal });
  return { disk, image, extents, compare };
};

const flip = async (path: string, offset: number): Promise<void> => {
  await using file = await open(path, 'r+');
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, offset);
  await file.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, offset);
  await file.sync();
};

test('a disk that holds the image is the same; nothing is written', async (t) => {
  const { disk, compare } = await captured(t);
  const before = await hashOf(disk.path);
  const report = await compare();
  t.true(report.same, describeReport(report));
  t.deepEqual(report.table, []);
  const [part] = report.partitions;
  t.is(part?.same, part?.chunks);
  t.true((part?.chunks ?? 0) > 10);
  t.is(await hashOf(disk.path), before);
  t.regex(describeReport(report), /the same\ntable: the same\np1 ext4: \d+ of \d+ chunks the same\nCompared/);
});

test('one changed byte is found with its place; free space may change as it likes', async (t) => {
  const { disk, extents, compare } = await captured(t);
  const used = extents.at(-1) ?? { offset: 0, length: 0 };
  const gap = extents.findLast(({ offset, length }, at) => {
    const next = extents[at + 1];
    return next !== undefined && next.offset - offset - length >= 4096;
  });
  if (!gap) return t.fail('the filesystem has a hole');
  await flip(disk.path, START + gap.offset + gap.length);
  t.true((await compare()).same, 'free space');
  await flip(disk.path, START + used.offset);
  const report = await compare();
  t.false(report.same);
  const [part] = report.partitions;
  t.is(part?.different, 1);
  const chunk = START + Math.floor(used.offset / CHUNK) * CHUNK;
  t.is(part?.ranges[0]?.start, chunk);
  t.regex(describeReport(report), new RegExp(`they differ[^]*1 different\n {2}bytes ${chunk} to`));
});

test('a table that differs is said in words, and a partition that is not there cannot be the same', async (t) => {
  const { disk, compare } = await captured(t);
  await run('sfdisk', [
    '--quiet',
    '--no-reread',
    '--no-tell-kernel',
    '--part-label',
    disk.path,
    '1',
    'other',
  ]);
  const renamed = await compare();
  t.deepEqual(renamed.table, ['label of partition 1 is other, not root']);
  t.false(renamed.same);
  t.is(renamed.partitions[0]?.different, 0);
  await run('sfdisk', ['--quiet', '--no-reread', '--no-tell-kernel', '--delete', disk.path, '1']);
  const gone = await compare();
  t.false(gone.same);
  t.is(gone.partitions[0]?.note, 'is not on the disk');
});

test('what the image itself lacks is left out and said', async (t) => {
  const { disk, image, extents, compare } = await captured(t);
  const used = extents.at(-1) ?? { offset: 0, length: 0 };
  const [part] = image.manifest.disks[0]?.partitions ?? [];
  if (part) part.damaged = [{ start: used.offset, size: 512 }];
  await flip(disk.path, START + used.offset);
  const report = await compare();
  t.true(report.same, describeReport(report));
  t.is(report.partitions[0]?.leftOut, 1);
  t.regex(describeReport(report), /1 left out: damaged in the image/);
});
