import test from 'ava';
import fc from 'fast-check';
import { planDeploy } from '../../../agent/disk/planner.ts';
import { ImagingError } from '../../../agent/errors.ts';
import type { ImageDisk, ImagePartition, Manifest, Plan } from '../../../agent/protocol/index.ts';
import { anyDisk, assertSound, tableOf } from './layout-cases.ts';
import { imageOf, MIB, target } from './planner-cases.ts';

const manifestOf = (disk: ImageDisk): Manifest => ({
  ...imageOf({ size: disk.size, partitions: [] }),
  disks: [disk],
});

const fixedRoles = ['esp', 'bios-boot', 'msr', 'recovery', 'oem', 'swap'];

const cannotMove = (disk: ImageDisk, { role, attributes, type }: ImagePartition): boolean =>
  role === 'bios-boot' ||
  (disk.table === 'dos' &&
    (attributes === 'bootable' ||
      (type === '07' && ['os', 'data'].includes(role)) ||
      (role === 'os' && disk.partitions.some((one) => one.type === '07'))));

const places = (parts: readonly { name: string; start: number; size: number; bootRecord: number | null }[]) =>
  parts.map(({ name, start, size, bootRecord }) => ({ name, start, size, bootRecord }));

/** Everything that holds of any plan. */
const assertPlan = (disk: ImageDisk, plan: Plan, grow: boolean): void => {
  const check = (holds: boolean, what: string) => {
    if (!holds) throw new Error(`${what}: ${JSON.stringify({ plan, disk }, null, 1)}`);
  };
  const all = [...plan.partitions, ...plan.kept];
  const sector = disk.logicalSectorSize;
  const layout = { ...disk, size: Math.floor(plan.disk.size / sector) * sector, extended: plan.extended };
  assertSound(layout, all);
  const original = disk.partitions.toSorted((a, b) => a.start - b.start);
  for (const [index, partition] of plan.partitions.entries()) {
    const before = disk.partitions.find(({ name }) => name === partition.name);
    if (!before) throw new Error('not in the image');
    if (plan.kept.length === 0) check(original[index]?.name === partition.name, 'order');
    check(partition.contentSize === before.size && partition.size >= before.size, 'content fits');
    check(partition.grow === partition.size > before.size, 'grow says what happens');
    const end = partition.start + partition.size;
    if (partition.grow) {
      check(grow && before.method === 'used' && !fixedRoles.includes(before.role), 'may grow');
      check(disk.table === 'none' || end % MIB === 0, 'aligned end');
    }
    const moved = plan.moved.find(({ name }) => name === partition.name);
    check((partition.start !== before.start) === (moved !== undefined), 'moves are listed');
    if (!moved) continue;
    check(moved.from === before.start && moved.to === partition.start, 'from and to');
    check(!cannotMove(disk, before), `${before.name} cannot move`);
    check(['swap', 'recovery', 'os', 'data'].includes(before.role), 'may move');
    check(partition.start % MIB === 0, 'aligned');
  }
  for (const { start, size } of plan.unused) {
    check(start >= (disk.table === 'none' ? 0 : MIB) && size > 0, 'unused begins');
    check(start + size <= plan.disk.size, 'unused inside');
    for (const partition of all) {
      const contentEnd = partition.start + partition.contentSize;
      check(start + size <= partition.start || start >= contentEnd, 'unused holds content');
      const record = partition.bootRecord;
      check(record === null || start + size <= record || start > record, 'unused holds a boot record');
    }
  }
};

const growth = fc.oneof(fc.constant(0), fc.integer({ min: -400_000, max: 4_000_000 }));
const growable = ({ method }: ImagePartition) => method === 'used';

test('any image on any disk: apart, inside, in order, aligned, nothing under its size; a refusal names the very size', (t) => {
  fc.assert(
    fc.property(anyDisk, growth, fc.boolean(), fc.nat(511), (disk, difference, grow, odd) => {
      const sector = disk.logicalSectorSize;
      const image = manifestOf(disk);
      const options = { firmware: image.firmware, grow, growable };
      const plan = (size: number) => planDeploy(image, target({ size, logicalSectorSize: sector }), options);
      const size = Math.max(sector * 8, disk.size + difference * sector) + odd;
      try {
        const made = plan(size);
        assertPlan(disk, made, grow);
        t.deepEqual(plan(size), made);
      } catch (error) {
        if (!(error instanceof ImagingError) || error.code !== 'TARGET_TOO_SMALL') throw error;
        const needed = error.details['neededBytes'] as number;
        if (needed <= size || needed > disk.size) throw new Error(`needs ${needed} of ${disk.size}`);
        assertPlan(disk, plan(needed), grow);
        t.throws(() => plan(needed - sector), { code: 'TARGET_TOO_SMALL' });
      }
      const same = plan(disk.size);
      const sorted = disk.partitions.toSorted((a, b) => a.start - b.start);
      t.deepEqual(places(same.partitions), places(sorted));
      t.deepEqual(same.extended, disk.extended);
    }),
    { numRuns: 2500 },
  );
});

test('what is deployed again with anything kept: the kept ones are where they were, the others around them', (t) => {
  let kept = 0;
  fc.assert(
    fc.property(
      anyDisk,
      growth,
      fc.boolean(),
      fc.subarray([0, 1, 2, 3, 4, 5, 6, 7]),
      (disk, difference, grow, which) => {
        fc.pre(disk.table !== 'none');
        const sector = disk.logicalSectorSize;
        const image = manifestOf(disk);
        const options = { firmware: image.firmware, grow, growable };
        const onto = target({ size: disk.size + Math.abs(difference) * sector, logicalSectorSize: sector });
        const first = planDeploy(image, onto, options);
        const keep = which.flatMap((index) => disk.partitions[index]?.number ?? []);
        fc.pre(keep.length > 0 && keep.length < disk.partitions.length);
        const present = tableOf(first);
        const again = planDeploy(image, onto, { ...options, keep, present });
        assertPlan(disk, again, grow);
        t.is(again.oldTable, 'replaced');
        t.deepEqual(again.kept.map(({ number }) => number).sort(), [...keep].sort());
        for (const one of again.kept) {
          const there = present.partitions.find(({ number }) => number === one.number);
          t.deepEqual([one.start, one.size, one.bootRecord], [there?.start, there?.size, there?.bootRecord]);
        }
        kept += 1;
        // and only the others, into the layout as it is
        const others = disk.partitions.map(({ number }) => number).filter((number) => !keep.includes(number));
        const into = planDeploy(image, onto, { ...options, partitions: others, present });
        t.is(into.oldTable, 'stays');
        t.deepEqual(
          places([...into.partitions, ...into.kept]).sort((a, b) => a.start - b.start),
          places(first.partitions),
        );
        const written = new Set(into.partitions.map(({ number }) => number));
        for (const { start, size } of into.unused) {
          const inside = into.partitions.some(
            (one) =>
              written.has(one.number) &&
              start >= one.start + one.contentSize &&
              start + size <= one.start + one.size,
          );
          t.true(inside);
        }
      },
    ),
    { numRuns: 1200 },
  );
  t.true(kept > 200, `${kept} cases`);
});
