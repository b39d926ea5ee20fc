import test from 'ava';
import { planDeploy } from '../../../agent/disk/planner.ts';
import type { ImagingError } from '../../../agent/errors.ts';
import type { Plan } from '../../../agent/protocol/index.ts';
import { GIB, imageOf, MIB, partitionOf, target } from './planner-cases.ts';

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

test('a disk without a table is written from its first byte, and its filesystem fills a larger disk', (t) => {
  const image = imageOf({ size: GIB, table: 'none', partitions: [partitionOf(1, 0, GIB)] });
  const plan = planDeploy(image, target({ size: 2 * GIB + 100 }), uefi);
  t.deepEqual(places(plan), [[1, 0, 2 * GIB, true]]);
  t.deepEqual(plan.unused, [{ start: GIB, size: GIB }]);
  const raw = imageOf({ size: GIB, table: 'none', partitions: [partitionOf(1, 0, GIB, { method: 'raw' })] });
  t.deepEqual(places(planDeploy(raw, target({ size: 2 * GIB }), uefi)), [[1, 0, GIB, false]]);
  const error = t.throws(() => planDeploy(image, target({ size: GIB - 512 }), uefi), {
    code: 'TARGET_TOO_SMALL',
  }) as ImagingError;
  t.is(error.details['neededBytes'], GIB);
});

test('those that can grow share the new space in proportion to their sizes; what lies behind moves', (t) => {
  const image = imageOf({
    size: 8 * GIB,
    partitions: [
      partitionOf(1, MIB, 512 * MIB, { role: 'esp', fs: 'vfat' }),
      partitionOf(2, 513 * MIB, GIB, { role: 'os' }),
      partitionOf(3, 513 * MIB + GIB, 512 * MIB, { role: 'swap', fs: 'swap', method: 'recreate' }),
      partitionOf(4, 2 * GIB + MIB, 3 * GIB, { role: 'data' }),
    ],
  });
  const size = 20 * GIB;
  const plan = planDeploy(image, target({ size }), uefi);
  const won = size - MIB - (5 * GIB + MIB);
  const root = GIB + Math.floor(won / 4 / MIB) * MIB;
  t.deepEqual(places(plan), [
    [1, MIB, 512 * MIB, false],
    [2, 513 * MIB, root, true],
    [3, 513 * MIB + root, 512 * MIB, false],
    [4, 1025 * MIB + root, size - MIB - (1025 * MIB + root), true],
  ]);
  t.deepEqual(
    plan.moved.map(({ name, from, to }) => [name, from, to]),
    [
      ['p3', 513 * MIB + GIB, 513 * MIB + root],
      ['p4', 2 * GIB + MIB, 1025 * MIB + root],
    ],
  );
  const only = planDeploy(image, target({ size }), { ...uefi, growPartition: 2 });
  t.deepEqual(
    only.partitions.map(({ grow }) => grow),
    [false, true, false, false],
  );
  t.is(only.partitions[1]?.size, GIB + won);
});

test('on MBR logical partitions grow and move, their boot records and the container with them', (t) => {
  const image = imageOf({
    size: 8 * GIB,
    table: 'dos',
    firmware: 'bios',
    partitions: [
      partitionOf(1, MIB, 4 * GIB, { role: 'os', type: '83' }),
      {
        ...partitionOf(5, 4 * GIB + 2 * MIB, GIB, {
          role: 'swap',
          fs: 'swap',
          method: 'recreate',
          type: '82',
        }),
        bootRecord: 4 * GIB + 2 * MIB - 1024,
      },
      { ...partitionOf(6, 6 * GIB, GIB, { role: 'data', type: '83' }), bootRecord: 6 * GIB - MIB },
    ],
    extended: {
      number: 2,
      start: 4 * GIB + 2 * MIB - 1024,
      size: 8 * GIB - (4 * GIB + 2 * MIB - 1024),
      type: '05',
    },
  });
  const bios = { firmware: 'bios', grow: true } as const;
  t.deepEqual(planDeploy(image, target({ size: 8 * GIB }), bios).extended, image.disks[0]?.extended ?? null);
  const plan = planDeploy(image, target({ size: 20 * GIB }), bios);
  const [root, swap, data] = plan.partitions;
  t.true(root?.grow && data?.grow && !swap?.grow);
  t.is(swap?.bootRecord, (swap?.start ?? 0) - 1024);
  t.is(data?.bootRecord, (data?.start ?? 0) - MIB);
  t.is((data?.start ?? 0) + (data?.size ?? 0), 20 * GIB);
  t.deepEqual(plan.extended, {
    ...{ number: 2, type: '05', start: swap?.bootRecord ?? 0 },
    size: 20 * GIB - (swap?.bootRecord ?? 0),
  });
});

test('a disk of several is planned by name; the firmware matters only for one that boots', (t) => {
  const one = windows();
  const [first] = one.disks;
  if (!first) return t.fail();
  const data = { ...first, name: 'd2', partitions: [{ ...partitionOf(1, MIB, GIB), name: 'd2p1' }] };
  const image = { ...one, disks: [first, data] };
  const bios = { firmware: 'bios', grow: false } as const;
  const plan = planDeploy(image, target({ size: 64 * GIB }), { ...bios, imageDisk: 'd2' });
  t.deepEqual([plan.imageDisk, plan.partitions[0]?.name], ['d2', 'd2p1']);
  t.throws(() => planDeploy(image, target({ size: 64 * GIB }), { ...bios, imageDisk: 'd1' }), {
    code: 'FIRMWARE_MISMATCH',
  });
  t.throws(() => planDeploy(image, target({ size: 64 * GIB }), bios), { code: 'LAYOUT_UNSUPPORTED' });
});

test('a predicate over the partition decides what can grow: by default LVM can, LUKS and what is raw cannot', (t) => {
  const grows = (fs: string, method: 'used' | 'raw', more: object = {}) => {
    const image = imageOf({
      size: 4 * GIB,
      partitions: [partitionOf(1, MIB, GIB, { role: 'data', fs, method })],
    });
    return planDeploy(image, target({ size: 8 * GIB }), { ...uefi, ...more }).partitions[0]?.grow;
  };
  t.true(grows('LVM2_member', 'used'));
  t.false(grows('LVM2_member', 'raw'));
  t.false(grows('crypto_LUKS', 'used'));
  const growable = ({ filesystem }: { filesystem: { type: string } | null }) =>
    filesystem?.type === 'crypto_LUKS';
  t.true(grows('crypto_LUKS', 'raw', { growable }));
});

test('what was encrypted when it was captured is told to whoever deploys it', (t) => {
  const image = windows();
  for (const partition of image.disks[0]?.partitions ?? []) {
    if (partition.role === 'os') partition.decryptedFrom = 'bitlocker';
  }
  const { warnings } = planDeploy(image, target({ size: 117 * MIB + 60 * GIB + 601 * MIB }), uefi);
  t.deepEqual(warnings, [
    'p3 was encrypted with BitLocker when it was captured and is not here: turn it on again',
  ]);
});
