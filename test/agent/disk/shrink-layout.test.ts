import test from 'ava';
import fc from 'fast-check';
import { shrinkLayout } from '../../../agent/disk/shrink-layout.ts';
import { ImagingError } from '../../../agent/errors.ts';
import type { ImageDisk, ImagePartition } from '../../../agent/protocol/index.ts';
import { anyDisk, assertSound } from './layout-cases.ts';
import { GIB, imageOf, MIB, partitionOf } from './planner-cases.ts';

const withMinimum = (partition: ImagePartition, minimumBytes: number): ImagePartition => ({
  ...partition,
  filesystem: { type: 'ext4', uuid: '', label: '', ...partition.filesystem, minimumBytes, usedBytes: null },
});

const diskOf = (facts: Parameters<typeof imageOf>[0]): ImageDisk => {
  const [disk] = imageOf(facts).disks;
  if (!disk) throw new Error('no disk');
  return disk;
};

const places = (disk: ReturnType<typeof shrinkLayout>) =>
  disk.partitions.map(({ name, start, size }) => [name, start, size]);

const windows = () =>
  diskOf({
    size: 64 * GIB,
    partitions: [
      partitionOf(1, MIB, 100 * MIB, { role: 'esp', fs: 'vfat' }),
      partitionOf(2, 101 * MIB, 16 * MIB, { role: 'msr', method: 'raw' }),
      withMinimum(partitionOf(3, 117 * MIB, 60 * GIB, { role: 'os', fs: 'ntfs' }), 20 * GIB),
      partitionOf(4, 60 * GIB + 117 * MIB, 600 * MIB, { role: 'recovery', fs: 'ntfs' }),
    ],
  });

test('C: gives the space, the recovery partition follows it to the end', (t) => {
  const size = 32 * GIB;
  const shrunk = shrinkLayout(windows(), size);
  t.is(shrunk.size, size);
  const recovery = size - 601 * MIB;
  t.deepEqual(places(shrunk), [
    ['p1', MIB, 100 * MIB],
    ['p2', 101 * MIB, 16 * MIB],
    ['p3', 117 * MIB, recovery - 117 * MIB],
    ['p4', recovery, 600 * MIB],
  ]);
});

test('a disk that is large enough keeps its layout; its size is the smaller of both', (t) => {
  const disk = windows();
  const original = disk.partitions.map(({ name, start, size }) => [name, start, size]);
  for (const size of [61 * GIB, 64 * GIB, 128 * GIB]) {
    const shrunk = shrinkLayout(disk, size);
    t.deepEqual(places(shrunk), original);
    t.is(shrunk.size, Math.min(size, 64 * GIB));
  }
});

test('gaps go first, then each gives in proportion to what it can', (t) => {
  const disk = diskOf({
    size: 40 * GIB,
    partitions: [
      withMinimum(partitionOf(1, MIB, 10 * GIB, { role: 'os' }), GIB),
      withMinimum(partitionOf(2, 12 * GIB, 20 * GIB), 4 * GIB),
    ],
  });
  t.deepEqual(places(shrinkLayout(disk, 31 * GIB)), [
    ['p1', MIB, 10 * GIB],
    ['p2', 10 * GIB + MIB, 20 * GIB],
  ]);
  const [root, data] = shrinkLayout(disk, 20 * GIB).partitions;
  if (!root || !data) return t.fail();
  t.is(data.start, root.start + root.size);
  t.is(data.start + data.size, 20 * GIB - MIB);
  // 1 GiB keeps 256 MiB of slack, 4 GiB a tenth
  const ratio = (10 * GIB - root.size) / (20 * GIB - data.size);
  t.true(Math.abs(ratio - 8.75 / 15.6) < 0.001, String(ratio));
  // below the slack only where nothing else is left
  const tight = shrinkLayout(disk, 5 * GIB + 100 * MIB).partitions.map(({ size }) => size);
  t.true((tight[0] ?? 0) > GIB && (tight[0] ?? 0) < GIB + 100 * MIB);
  t.true((tight[1] ?? 0) > 4 * GIB);
});

test('what does not fit is refused with the size that would do, and who sets it', (t) => {
  const error = t.throws(() => shrinkLayout(windows(), 16 * GIB), {
    code: 'TARGET_TOO_SMALL',
  }) as ImagingError;
  const needed = 20 * GIB + 717 * MIB + 33 * 512;
  t.like(error.details, { neededBytes: needed, availableBytes: 16 * GIB, partition: 'p3' });
  t.regex(error.message, new RegExp(`needs ${needed}; p3 \\(os, ntfs\\)`));
  t.is(shrinkLayout(windows(), needed).partitions[2]?.size, 20 * GIB);
});

test('on MBR Windows keeps its start; only its recovery partition moves', (t) => {
  const disk = diskOf({
    size: 64 * GIB,
    table: 'dos',
    firmware: 'bios',
    partitions: [
      { ...partitionOf(1, MIB, 500 * MIB, { role: 'data', fs: 'ntfs', type: '07' }), attributes: 'bootable' },
      withMinimum(partitionOf(2, 600 * MIB, 60 * GIB, { role: 'os', fs: 'ntfs', type: '07' }), 9 * GIB),
      partitionOf(3, 62 * GIB, 600 * MIB, { role: 'recovery', fs: 'ntfs', type: '27' }),
    ],
  });
  t.deepEqual(places(shrinkLayout(disk, 16 * GIB)), [
    ['p1', MIB, 500 * MIB],
    ['p2', 600 * MIB, 16 * GIB - 1200 * MIB],
    ['p3', 16 * GIB - 600 * MIB, 600 * MIB],
  ]);
});

test('logical partitions move with their boot records, and the container with them', (t) => {
  const disk = diskOf({
    size: 40 * GIB,
    table: 'dos',
    extended: { number: 2, start: 20 * GIB - 1024, size: 20 * GIB, type: '05' },
    partitions: [
      withMinimum(partitionOf(1, MIB, 19 * GIB, { role: 'os', type: '83' }), 2 * GIB),
      {
        ...partitionOf(5, 20 * GIB, GIB, { role: 'swap', fs: 'swap', type: '82' }),
        bootRecord: 20 * GIB - 1024,
      },
      withMinimum(
        { ...partitionOf(6, 22 * GIB, 16 * GIB, { type: '83' }), bootRecord: 22 * GIB - MIB },
        2 * GIB,
      ),
    ],
  });
  const shrunk = shrinkLayout(disk, 12 * GIB);
  assertSound({ ...disk, ...shrunk }, shrunk.partitions);
  const [root, swap, data] = shrunk.partitions;
  t.is(swap?.bootRecord, (swap?.start ?? 0) - 1024);
  t.is(data?.bootRecord, (data?.start ?? 0) - MIB);
  t.is(shrunk.extended?.start, swap?.bootRecord ?? -1);
  t.is((shrunk.extended?.start ?? 0) + (shrunk.extended?.size ?? 0), 12 * GIB);
  t.is((data?.start ?? 0) + (data?.size ?? 0), 12 * GIB);
  t.true((root?.size ?? 0) < 19 * GIB);
});

test('a disk without a table gives by the sector', (t) => {
  const disk = diskOf({
    size: 4 * GIB,
    table: 'none',
    partitions: [withMinimum(partitionOf(1, 0, 4 * GIB, { role: 'data', type: '' }), GIB + 1)],
  });
  t.deepEqual(places(shrinkLayout(disk, 3 * GIB + 700)), [['p1', 0, 3 * GIB + 512]]);
  const error = t.throws(() => shrinkLayout(disk, GIB), { code: 'TARGET_TOO_SMALL' }) as ImagingError;
  t.is(error.details['neededBytes'], GIB + 512);
});

const pinned = ({ role, attributes }: ImagePartition) => role === 'bios-boot' || attributes === 'bootable';

test('any disk at any size: sound, nothing under its minimum, fixed roles and pinned starts as they were; a refusal names the very size', (t) => {
  fc.assert(
    fc.property(anyDisk, fc.double({ min: 0, max: 1.2, noNaN: true }), (disk, share) => {
      const target = Math.floor((share * disk.size) / disk.logicalSectorSize) * disk.logicalSectorSize;
      const verify = (size: number) => {
        const shrunk = shrinkLayout(disk, size);
        assertSound({ ...disk, ...shrunk }, shrunk.partitions);
        for (const partition of disk.partitions) {
          const place = shrunk.partitions.find(({ name }) => name === partition.name);
          if (!place) throw new Error(`${partition.name} is gone`);
          const { start, size, role, filesystem, method } = partition;
          const least = method === 'used' ? Math.min(size, filesystem?.minimumBytes ?? size) : size;
          if (place.size > size || place.size < least) throw new Error(`size of ${partition.name}`);
          const fixed = ['esp', 'bios-boot', 'msr', 'recovery', 'oem', 'swap'].includes(role);
          if (fixed && place.size !== size) throw new Error(`fixed ${partition.name}`);
          if (place.start > start) throw new Error(`${partition.name} moves up`);
          if (place.start !== start && (pinned(partition) || place.start % MIB !== 0)) {
            throw new Error(`${partition.name} moves to ${place.start}`);
          }
          if (place.size !== size && disk.table !== 'none' && place.size % MIB !== 0)
            throw new Error('off MiB');
        }
        if (size >= disk.size && JSON.stringify(shrunk.extended) !== JSON.stringify(disk.extended)) {
          throw new Error('the container changed');
        }
      };
      try {
        verify(target);
      } catch (error) {
        if (!(error instanceof ImagingError) || error.code !== 'TARGET_TOO_SMALL') throw error;
        const needed = error.details['neededBytes'] as number;
        if (needed <= target || needed > disk.size) throw new Error(`needs ${needed} of ${disk.size}`);
        verify(needed);
        t.throws(() => shrinkLayout(disk, needed - disk.logicalSectorSize), { code: 'TARGET_TOO_SMALL' });
      }
    }),
    { numRuns: 3000 },
  );
  t.pass();
});
