import test from 'ava';
import { planDeploy } from '../../../agent/disk/planner.ts';
import type { ImagingError } from '../../../agent/errors.ts';
import type { Manifest, Plan } from '../../../agent/protocol/index.ts';
import { tableOf } from './layout-cases.ts';
import { GIB, imageOf, MIB, partitionOf, target } from './planner-cases.ts';

const uefi = { firmware: 'uefi', grow: true } as const;
const bios = { firmware: 'bios', grow: true } as const;

const linux = () =>
  imageOf({
    size: 64 * GIB,
    partitions: [
      partitionOf(1, MIB, 512 * MIB, { role: 'esp', fs: 'vfat' }),
      partitionOf(2, GIB, 20 * GIB, { role: 'os' }),
      partitionOf(3, 21 * GIB, 2 * GIB, { role: 'swap', fs: 'swap', method: 'recreate' }),
      partitionOf(4, 23 * GIB, 40 * GIB, { role: 'data' }),
    ],
  });

const windowsOnMbr = () =>
  imageOf({
    ...{ size: 64 * GIB, table: 'dos', firmware: 'bios' },
    partitions: [
      partitionOf(1, MIB, 500 * MIB, { role: 'data', fs: 'ntfs', type: '07' }),
      partitionOf(2, 501 * MIB, 30 * GIB, { role: 'os', fs: 'ntfs', type: '07' }),
    ],
  });

const same = target({ size: 64 * GIB });
const planOn = (image: Manifest, size: number): Plan =>
  planDeploy(image, target({ size }), { ...(image.firmware === 'uefi' ? uefi : bios) });

const refusal = test.macro(
  (t, image: Manifest, options: Partial<Parameters<typeof planDeploy>[2]>, reason: RegExp, size?: number) => {
    const base = image.firmware === 'uefi' ? uefi : bios;
    t.throws(() => planDeploy(image, target({ size: size ?? 64 * GIB }), { ...base, ...options }), {
      code: 'OPTION_REFUSED',
      message: reason,
    });
  },
);

test('growPartition: swap keeps its size', refusal, linux(), { growPartition: 3 }, /role \(swap\)/);
test('growPartition: no such one', refusal, linux(), { growPartition: 9 }, /no such partition/);
test('growPartition: nothing grows', refusal, linux(), { growPartition: 2, grow: false }, /nothing grows/);
test(
  'growPartition: on MBR Windows the partition behind stays',
  refusal,
  windowsOnMbr(),
  { growPartition: 1 },
  /p2 behind it \(os\) has to stay/,
  128 * GIB,
);
test('growPartition: a raw one', refusal, rawData(), { growPartition: 1 }, /kept whole/);
test('newIdentity: Windows on MBR', refusal, windowsOnMbr(), { newIdentity: 'x' }, /Windows/);
test('newIdentity: Windows by its MSR', refusal, withMsr(), { newIdentity: 'x' }, /Windows/);
test('partitions: no table', refusal, linux(), { partitions: [2] }, /no partition table/);
test(
  'partitions and keep',
  refusal,
  linux(),
  { partitions: [2], keep: [4], present: tableOf(planOn(linux(), 64 * GIB)) },
  /exclude each other/,
);
test(
  'partitions with a new identity',
  refusal,
  linux(),
  { partitions: [2], newIdentity: 'x', present: tableOf(planOn(linux(), 64 * GIB)) },
  /stays as it is/,
);
test(
  'partitions: one that the disk does not have',
  refusal,
  linux(),
  { partitions: [4], present: without(4) },
  /no such partition \(it has 1, 2, 3\)/,
);
test(
  'keep: one that the disk does not have',
  refusal,
  linux(),
  { keep: [4], present: without(4) },
  /no such/,
);
test(
  'keep: everything',
  refusal,
  linux(),
  { keep: [1, 2, 3, 4], present: tableOf(planOn(linux(), 64 * GIB)) },
  /every partition/,
);
test(
  'keep: it lies elsewhere',
  refusal,
  linux(),
  { keep: [4], present: moved(4, { start: 24 * GIB, size: 39 * GIB }) },
  /planned are/,
);
test(
  'keep: it is smaller',
  refusal,
  linux(),
  { keep: [4], present: moved(4, { size: 30 * GIB }) },
  /planned are/,
);
test(
  'keep: another kind of table',
  refusal,
  linux(),
  { keep: [4], present: { ...tableOf(planOn(linux(), 64 * GIB)), kind: 'dos' } },
  /of kind dos/,
);
test(
  'keep: a partition of nobody where the image has one',
  refusal,
  linux(),
  { keep: [7], present: moved(4, { number: 7 }) },
  /p4 of the image goes there/,
);

function rawData(): Manifest {
  return imageOf({ size: 64 * GIB, partitions: [partitionOf(1, MIB, GIB, { method: 'raw' })] });
}

function withMsr(): Manifest {
  const { partitions = [] } = linux().disks[0] ?? {};
  return imageOf({
    size: 64 * GIB,
    partitions: [...partitions, partitionOf(5, 63 * GIB, 16 * MIB, { role: 'msr', method: 'raw' })],
  });
}

function without(number: number) {
  const table = tableOf(planOn(linux(), 64 * GIB));
  return { ...table, partitions: table.partitions.filter((one) => one.number !== number) };
}

function moved(number: number, change: { start?: number; size?: number; number?: number }) {
  const table = tableOf(planOn(linux(), 64 * GIB));
  return {
    ...table,
    partitions: table.partitions.map((one) => (one.number === number ? { ...one, ...change } : one)),
  };
}

test('one partition goes into the layout that the disk has, and fills it; nothing else is planned', (t) => {
  const present = moved(4, { size: 40 * GIB + 512 * MIB });
  const plan = planDeploy(linux(), same, { ...uefi, partitions: [4], present });
  t.is(plan.oldTable, 'stays');
  t.is(plan.tableId, present.id);
  t.deepEqual(
    plan.partitions.map(({ number, size, contentSize, grow }) => [number, size, contentSize, grow]),
    [[4, 40 * GIB + 512 * MIB, 40 * GIB, true]],
  );
  t.deepEqual(
    plan.kept.map(({ number }) => number),
    [1, 2, 3],
  );
  t.deepEqual(plan.unused, [{ start: 63 * GIB, size: 512 * MIB }]);
  const whole = planDeploy(linux(), same, { ...uefi, grow: false, partitions: [4], present });
  t.false(whole.partitions[0]?.grow);
  t.regex(whole.warnings.join(), /does not fill/);
});

test('a partition that is too small on the disk is refused with the bytes it needs', (t) => {
  const present = moved(4, { size: 30 * GIB });
  const error = t.throws(() => planDeploy(linux(), same, { ...uefi, partitions: [4], present }), {
    code: 'TARGET_TOO_SMALL',
  }) as ImagingError;
  t.like(error.details, { neededBytes: 40 * GIB, availableBytes: 30 * GIB, partition: 'p4' });
});

test('on MBR a Windows partition goes to no other start', (t) => {
  const table = tableOf(planOn(windowsOnMbr(), 64 * GIB));
  const shifted = table.partitions.map((one) =>
    one.number === 2 ? { ...one, start: one.start + MIB } : one,
  );
  const options = { ...bios, partitions: [2], present: { ...table, partitions: shifted } };
  t.throws(() => planDeploy(windowsOnMbr(), same, options), {
    code: 'OPTION_REFUSED',
    message: /counts on byte/,
  });
});

test('a partition of another type or GUID is written all the same, and said', (t) => {
  const table = tableOf(planOn(linux(), 64 * GIB));
  const renamed = table.partitions.map((one) => ({ ...one, uuid: one.number === 2 ? 'other' : one.uuid }));
  const plan = planDeploy(linux(), same, {
    ...uefi,
    partitions: [2],
    present: { ...table, partitions: renamed },
  });
  t.is(plan.partitions[0]?.uuid, 'other');
  t.regex(plan.warnings.join(), /p2 keeps the uuid/);
});

test('a data partition is kept with the fields that the disk has for it; the others are written around it', (t) => {
  const present = moved(4, {});
  const labelled = present.partitions.map((one) => ({
    ...one,
    label: one.number === 4 ? 'mine' : one.label,
  }));
  const plan = planDeploy(linux(), same, {
    ...uefi,
    keep: [4],
    present: { ...present, partitions: labelled },
  });
  t.is(plan.oldTable, 'replaced');
  t.deepEqual(
    plan.kept.map(({ number, label, grow }) => [number, label, grow]),
    [[4, 'mine', false]],
  );
  t.deepEqual(
    plan.partitions.map(({ number }) => number),
    [1, 2, 3],
  );
  for (const { start, size } of plan.unused) t.true(start + size <= 23 * GIB || start >= 63 * GIB);
});

test('on a larger disk a kept partition stays where the earlier deploy has put it', (t) => {
  const first = planOn(linux(), 128 * GIB);
  const data = first.partitions.find(({ number }) => number === 4);
  t.true((data?.start ?? 0) > 23 * GIB);
  const again = planDeploy(linux(), target({ size: 128 * GIB }), {
    ...uefi,
    keep: [4],
    present: tableOf(first),
  });
  t.deepEqual(
    again.partitions.map(({ start, size }) => [start, size]),
    first.partitions.slice(0, 3).map(({ start, size }) => [start, size]),
  );
  // and where the image has it, while the others grow up to it
  const fixed = moved(4, {});
  const around = planDeploy(linux(), target({ size: 128 * GIB }), { ...uefi, keep: [4], present: fixed });
  t.is(around.kept[0]?.start, 23 * GIB);
});

test('a partition that the image knows nothing of is kept in free space', (t) => {
  const image = imageOf({ size: 64 * GIB, partitions: [partitionOf(1, MIB, 10 * GIB, { role: 'os' })] });
  const table = tableOf(planOn(image, 64 * GIB));
  const mine = { ...table.partitions[0], number: 2, start: 30 * GIB, size: GIB, uuid: 'mine' };
  const present = { ...table, partitions: [...table.partitions, mine as (typeof table.partitions)[0]] };
  const plan = planDeploy(image, target({ size: 128 * GIB }), { ...uefi, keep: [2], present });
  t.deepEqual([plan.kept[0]?.name, plan.kept[0]?.start, plan.kept[0]?.uuid], ['p2', 30 * GIB, 'mine']);
  t.is(plan.partitions[0]?.size, 30 * GIB - MIB);
  const twin = {
    ...present,
    partitions: present.partitions.map((one) => ({
      ...one,
      uuid: image.disks[0]?.partitions[0]?.uuid ?? '',
    })),
  };
  t.throws(() => planDeploy(image, same, { ...uefi, keep: [2], present: twin }), { message: /same GUID/ });
});

test('a new identity follows from its seed: the same task, the same GUIDs', (t) => {
  const plan = (seed: string) => planDeploy(linux(), same, { ...uefi, newIdentity: seed });
  const [one, again, other] = [plan('a'), plan('a'), plan('b')];
  t.deepEqual(one, again);
  const guids = (made: Plan) => [made.tableId, ...made.partitions.map(({ uuid }) => uuid)];
  t.is(new Set([...guids(one), ...guids(other), ...guids(planOn(linux(), 64 * GIB))]).size, 15);
  for (const guid of guids(one))
    t.regex(guid, /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  t.regex(one.warnings.join(), /PARTUUID/);
  const dos = imageOf({
    ...{ size: GIB, table: 'dos', firmware: 'bios' },
    partitions: [partitionOf(1, MIB, 100 * MIB, { role: 'os', type: '83' })],
  });
  const made = planDeploy(dos, target({ size: GIB }), { ...bios, newIdentity: 'a' });
  t.regex(made.tableId, /^0x[0-9a-f]{8}$/);
  t.not(made.tableId, '0x0badcafe');
});

test('a chain that contradicts itself is no layout', (t) => {
  const logical = (change: object, extended: object = {}) =>
    imageOf({
      ...{ size: 8 * GIB, table: 'dos', firmware: 'bios' },
      extended: { number: 2, start: GIB, size: 4 * GIB, type: '05', ...extended },
      partitions: [
        partitionOf(1, MIB, 100 * MIB, { type: '83' }),
        { ...partitionOf(5, GIB + MIB, GIB, { type: '83' }), bootRecord: GIB },
        { ...partitionOf(6, 3 * GIB, GIB, { type: '83' }), bootRecord: 3 * GIB - MIB, ...change },
      ],
    });
  t.notThrows(() => planDeploy(logical({}), target({ size: 8 * GIB }), bios));
  for (const [change, extended, reason] of [
    [{ bootRecord: null }, {}, /no place/],
    [{ bootRecord: GIB }, {}, /share/],
    [{ bootRecord: GIB + 2 * MIB }, {}, /covers a boot record/],
    [{ bootRecord: 3 * GIB }, {}, /outside/],
    [{ bootRecord: 512 * MIB }, {}, /outside/],
    [{ number: 7, name: 'p7' }, {}, /gap/],
    [{}, { size: GIB }, /outside/],
    [{}, { start: 50 * MIB }, /overlaps the extended/],
    [{}, { number: 1 }, /number 1/],
    [{}, { type: '83' }, /type 83/],
    [{}, { size: 8 * GIB }, /outside its disk/],
  ] as const) {
    t.throws(() => planDeploy(logical(change, extended), target({ size: 8 * GIB }), bios), {
      code: 'IMAGE_INVALID',
      message: reason,
    });
  }
});
