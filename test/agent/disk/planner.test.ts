import test from 'ava';
import fc from 'fast-check';
import { gptUsable } from '../../../agent/disk/gpt.ts';
import { planDeploy } from '../../../agent/disk/planner.ts';
import { ImagingError } from '../../../agent/errors.ts';
import type { Plan } from '../../../agent/protocol/index.ts';
import { anyCase, GIB, imageOf, MIB, partitionOf, target } from './planner-cases.ts';

const windows = () =>
  imageOf({
    size: 64 * GIB,
    partitions: [
      partitionOf(1, MIB, 100 * MIB, { role: 'esp', fs: 'vfat' }),
      partitionOf(2, 101 * MIB, 16 * MIB, { role: 'msr', method: 'raw' }),
      partitionOf(3, 117 * MIB, 60 * GIB, { role: 'os', fs: 'ntfs' }),
      partitionOf(4, 117 * MIB + 60 * GIB, 600 * MIB, { role: 'recovery', fs: 'ntfs' }),
    ],
  });

const uefi = { firmware: 'uefi', grow: true } as const;
const places = (plan: Plan) =>
  plan.partitions.map(({ number, start, size, grow }) => [number, start, size, grow]);

test('on a disk of the same size nothing moves and nothing grows', (t) => {
  const image = windows();
  const disk = image.disks[0];
  const plan = planDeploy(image, target({ size: 117 * MIB + 60 * GIB + 601 * MIB }), uefi);
  t.deepEqual(
    places(plan),
    disk?.partitions.map(({ number, start, size }) => [number, start, size, false]),
  );
  t.deepEqual(plan.warnings, []);
});

test('a recovery partition moves to the end and Windows takes the space', (t) => {
  const size = 128 * GIB;
  const plan = planDeploy(windows(), target({ size }), uefi);
  // the backup table takes the last 33 sectors, alignment the rest of that MiB
  const recovery = size - MIB - 600 * MIB;
  t.deepEqual(places(plan), [
    [1, MIB, 100 * MIB, false],
    [2, 101 * MIB, 16 * MIB, false],
    [3, 117 * MIB, recovery - 117 * MIB, true],
    [4, recovery, 600 * MIB, false],
  ]);
  t.is(plan.partitions[2]?.contentSize, 60 * GIB);
  t.deepEqual(plan.unused, [
    { start: 117 * MIB + 60 * GIB, size: recovery - 117 * MIB - 60 * GIB },
    { start: size - MIB, size: MIB - 33 * 512 },
  ]);
  t.regex(plan.warnings.join(), /p4 \(recovery\) moves/);
});

test('an OEM partition at the end stays where it is and stops the growth', (t) => {
  const image = imageOf({
    size: 10 * GIB,
    partitions: [
      partitionOf(1, MIB, 4 * GIB, { role: 'os' }),
      partitionOf(2, 6 * GIB, GIB, { role: 'oem', method: 'raw' }),
    ],
  });
  t.deepEqual(places(planDeploy(image, target({ size: 20 * GIB }), uefi)), [
    [1, MIB, 6 * GIB - MIB, true],
    [2, 6 * GIB, GIB, false],
  ]);
});

test('without growth everything stays as it was in the image', (t) => {
  const plan = planDeploy(windows(), target({ size: 128 * GIB }), { firmware: 'uefi', grow: false });
  t.true(plan.partitions.every(({ grow, size, contentSize }) => !grow && size === contentSize));
});

test('what is kept raw does not grow', (t) => {
  const image = imageOf({
    size: 4 * GIB,
    partitions: [partitionOf(1, MIB, GIB, { role: 'os', method: 'raw' })],
  });
  t.deepEqual(places(planDeploy(image, target({ size: 8 * GIB }), uefi)), [[1, MIB, GIB, false]]);
});

test('on an MBR disk with Windows nothing moves', (t) => {
  const partitions = [
    partitionOf(1, MIB, 4 * GIB, { role: 'os', fs: 'ntfs', type: '07' }),
    partitionOf(2, 4 * GIB + MIB, GIB, { role: 'recovery', fs: 'ntfs', type: '27' }),
  ];
  const image = imageOf({ size: 8 * GIB, table: 'dos', firmware: 'bios', partitions });
  const plan = planDeploy(image, target({ size: 20 * GIB }), { firmware: 'bios', grow: true });
  t.deepEqual(
    places(plan),
    partitions.map(({ number, start, size }) => [number, start, size, false]),
  );
  t.regex(plan.warnings.join(), /stay unused/);
});

test('on an MBR disk with Linux swap makes way', (t) => {
  const image = imageOf({
    size: 8 * GIB,
    table: 'dos',
    firmware: 'bios',
    partitions: [
      partitionOf(1, MIB, 4 * GIB, { role: 'os', type: '83' }),
      partitionOf(2, 4 * GIB + MIB, GIB, { role: 'swap', fs: 'swap', method: 'recreate', type: '82' }),
    ],
  });
  const plan = planDeploy(image, target({ size: 20 * GIB }), { firmware: 'bios', grow: true });
  t.deepEqual(places(plan), [
    [1, MIB, 19 * GIB - MIB, true],
    [2, 19 * GIB, GIB, false],
  ]);
});

test('an MBR ends at 2^32 sectors', (t) => {
  const image = imageOf({
    size: 8 * GIB,
    table: 'dos',
    firmware: 'bios',
    partitions: [partitionOf(1, MIB, 4 * GIB, { role: 'os', type: '83' })],
  });
  const plan = planDeploy(image, target({ size: 4096 * GIB }), { firmware: 'bios', grow: true });
  const [only] = plan.partitions;
  t.true((only?.start ?? 0) + (only?.size ?? 0) < 2048 * GIB);
  t.regex(plan.warnings.join(), /2\^32/);
});

test('a smaller disk will do as long as the last partition ends before the backup table', (t) => {
  const image = imageOf({ size: 64 * GIB, partitions: [partitionOf(1, MIB, GIB, { role: 'os' })] });
  const needed = GIB + MIB + 33 * 512;
  t.deepEqual(places(planDeploy(image, target({ size: needed }), uefi)), [[1, MIB, GIB, false]]);
  const error = t.throws(() => planDeploy(image, target({ size: needed - 512 }), uefi), {
    code: 'TARGET_TOO_SMALL',
  }) as ImagingError;
  t.like(error.details, { neededBytes: needed, availableBytes: needed - 512 });
  t.regex(error.message, new RegExp(`needs ${needed}`));
});

test('sector sizes, firmwares and unknown layouts are refused', (t) => {
  const image = windows();
  t.throws(() => planDeploy(image, target({ size: 128 * GIB, logicalSectorSize: 4096 }), uefi), {
    code: 'SECTOR_SIZE_MISMATCH',
  });
  t.throws(() => planDeploy(image, target({ size: 128 * GIB }), { ...uefi, firmware: 'bios' }), {
    code: 'FIRMWARE_MISMATCH',
  });
  t.throws(() => planDeploy({ ...image, firmware: 'bios' }, target({ size: 128 * GIB }), uefi), {
    code: 'FIRMWARE_MISMATCH',
  });
  t.throws(() => planDeploy(image, target({ size: 128 * GIB }), { ...uefi, imageDisk: 'd2' }), {
    code: 'LAYOUT_UNSUPPORTED',
  });
  const logical = imageOf({
    size: 8 * GIB,
    table: 'dos',
    partitions: [partitionOf(1, MIB, GIB, { type: '05', method: 'raw' })],
  });
  t.throws(() => planDeploy(logical, target({ size: 8 * GIB }), uefi), { code: 'LAYOUT_UNSUPPORTED' });
});

test('a manifest that contradicts itself is invalid', (t) => {
  for (const partitions of [
    [partitionOf(1, MIB, GIB), partitionOf(2, GIB, GIB)],
    [partitionOf(1, MIB, GIB), partitionOf(1, 2 * GIB, GIB)],
    [partitionOf(1, MIB, 9 * GIB)],
    [partitionOf(1, MIB + 100, GIB)],
    [partitionOf(1, 512, GIB)],
    [partitionOf(1, MIB, 0)],
  ]) {
    const image = imageOf({ size: 8 * GIB, partitions });
    t.throws(() => planDeploy(image, target({ size: 16 * GIB }), uefi), { code: 'IMAGE_INVALID' });
  }
});

test('a disk without a table is written from its first byte', (t) => {
  const image = imageOf({ size: GIB, table: 'none', partitions: [partitionOf(1, 0, GIB)] });
  const plan = planDeploy(image, target({ size: 2 * GIB }), uefi);
  t.deepEqual(places(plan), [[1, 0, GIB, false]]);
  t.deepEqual(plan.unused, []);
});

test('every plan keeps content whole, in order, apart, aligned and inside the disk; only what may grows or moves', (t) => {
  fc.assert(
    fc.property(anyCase, ({ image, disk, grow }) => {
      const [source] = image.disks;
      if (!source) return;
      const original = [...source.partitions].sort((a, b) => a.start - b.start);
      let plan: Plan;
      try {
        plan = planDeploy(image, disk, { firmware: image.firmware, grow });
      } catch (error) {
        // the generator makes sound images: size is the only reason left
        if (!(error instanceof ImagingError) || error.code !== 'TARGET_TOO_SMALL') throw error;
        if ((error.details['neededBytes'] as number) <= disk.size) throw new Error('refused, but it fits');
        return;
      }
      const usable =
        plan.table === 'gpt'
          ? gptUsable(disk.size, disk.logicalSectorSize)
          : {
              start: disk.logicalSectorSize,
              end: Math.min(disk.size, (2 ** 32 - 1) * disk.logicalSectorSize),
            };
      const check = (holds: boolean, what: string) => {
        if (!holds) throw new Error(`${what}: ${JSON.stringify(plan)}`);
      };
      let end = usable.start;
      check(plan.partitions.length === original.length, 'number of partitions');
      check(plan.partitions.filter((partition) => partition.grow).length <= 1, 'one grows');
      for (const [index, partition] of plan.partitions.entries()) {
        const before = original[index];
        if (!before) throw new Error('order');
        check(partition.number === before.number, 'order');
        check(partition.start >= end, 'overlap');
        end = partition.start + partition.size;
        check(end <= usable.end, 'inside the disk');
        check(partition.contentSize === before.size && partition.size >= before.size, 'content fits');
        check(partition.start % disk.logicalSectorSize === 0, 'sector');
        check(partition.size % disk.logicalSectorSize === 0, 'sector');
        if (partition.start !== before.start) {
          check(['swap', 'recovery'].includes(partition.role), 'only swap and recovery move');
          check(partition.start % MIB === 0 && partition.start > before.start, 'aligned');
        }
        check(partition.grow === partition.size > before.size, 'grow says what happens');
        if (partition.grow) {
          check(grow && partition.method === 'used' && ['os', 'data'].includes(partition.role), 'may grow');
          check(end % MIB === 0, 'aligned end');
        }
      }
      // unused space and content never meet, and the table's own space is in neither
      for (const { start, size } of plan.unused) {
        check(start >= MIB && start + size <= usable.end && size > 0, 'unused inside');
        for (const partition of plan.partitions) {
          const contentEnd = partition.start + partition.contentSize;
          check(start + size <= partition.start || start >= contentEnd, 'unused holds content');
        }
      }
    }),
    { numRuns: 2000 },
  );
  t.pass();
});
