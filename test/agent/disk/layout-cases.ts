import fc from 'fast-check';
import type { DiskTable } from '../../../agent/disk/table.ts';
import type { ImageDisk, ImagePartition, PartitionRole, Plan } from '../../../agent/protocol/index.ts';
import { partitionOf } from './planner-cases.ts';

interface Content {
  role: PartitionRole;
  fs: string;
  method: ImagePartition['method'];
}

const contents = fc.constantFrom<Content>(
  { role: 'os', fs: 'ext4', method: 'used' },
  { role: 'os', fs: 'ntfs', method: 'used' },
  { role: 'data', fs: 'ext4', method: 'used' },
  { role: 'data', fs: 'ext4', method: 'raw' },
  { role: 'data', fs: 'LVM2_member', method: 'used' },
  { role: 'esp', fs: 'vfat', method: 'used' },
  { role: 'bios-boot', fs: '', method: 'raw' },
  { role: 'swap', fs: 'swap', method: 'recreate' },
  { role: 'recovery', fs: 'ntfs', method: 'used' },
  { role: 'oem', fs: 'vfat', method: 'used' },
  { role: 'unknown', fs: 'xfs', method: 'raw' },
);

const part = fc.record({
  gap: fc.oneof(fc.constant(0), fc.nat(40_000)),
  sectors: fc.oneof(
    fc.integer({ min: 1, max: 200_000 }),
    fc.integer({ min: 1, max: 4000 }).map((n) => n * 2048),
  ),
  content: contents,
  /** of the size; null: no tool could tell */
  minimum: fc.option(fc.double({ min: 0, max: 1, noNaN: true })),
  lead: fc.constantFrom(1, 2, 63, 2048, 5000),
  bootable: fc.boolean(),
  label: fc.string({ unit: 'grapheme', maxLength: 10 }).filter((text) => !text.includes('\0')),
});
type Part = typeof part extends fc.Arbitrary<infer T> ? T : never;

const GPT_TYPE = '0fc63daf-8483-4772-8e79-3d69d8477de4';

/** A sound disk of an image: GPT with unordered numbers, MBR with and without logical partitions, or no table. */
export const anyDisk: fc.Arbitrary<ImageDisk> = fc
  .record({
    table: fc.constantFrom('gpt', 'dos', 'logical', 'none'),
    sector: fc.constantFrom(512 as const, 4096 as const),
    parts: fc.array(part, { minLength: 1, maxLength: 8 }),
    numbers: fc.uniqueArray(fc.integer({ min: 1, max: 128 }), { minLength: 8, maxLength: 8 }),
    slots: fc.shuffledSubarray([1, 2, 3, 4], { minLength: 4, maxLength: 4 }),
    before: fc.nat(3),
    after: fc.nat(2),
    ordered: fc.boolean(),
    firstGap: fc.oneof(fc.constant(0), fc.constant(62), fc.constant(2014), fc.nat(5000)),
    slack: fc.oneof(fc.constant(0), fc.nat(50_000)),
    tail: fc.oneof(fc.constant(0), fc.nat(100_000)),
  })
  .map((facts) => {
    const { table, sector, parts, numbers, slots, firstGap, tail } = facts;
    const entries = table === 'gpt' ? Math.ceil(16384 / sector) : 0;
    const partitions: ImagePartition[] = [];
    let extended: ImageDisk['extended'] = null;
    let position = table === 'none' ? 0 : (table === 'gpt' ? 2 + entries : 1) + firstGap;
    const add = (number: number, one: Part, bootRecord: number | null = null) => {
      partitions.push(build(number, position * sector, one, table === 'gpt', sector, bootRecord));
      position += one.sectors;
    };
    if (table === 'none') add(1, parts[0] as Part);
    else if (table === 'gpt') {
      for (const [index, one] of parts.entries()) {
        position += one.gap;
        add(numbers[index] as number, one);
      }
    } else {
      const logical = table === 'logical' ? parts.slice(facts.before + facts.after) : [];
      const primary = table === 'logical' ? parts.slice(0, facts.before + facts.after) : parts.slice(0, 4);
      const room = table === 'logical' ? 3 : 4;
      const front = primary.slice(0, Math.min(room, table === 'logical' ? facts.before : 4));
      const back = primary.slice(front.length, room);
      let slot = 0;
      for (const one of front) {
        position += one.gap;
        add(slots[slot++] as number, one);
      }
      if (table === 'logical') {
        const number = slots[slot++] as number;
        position += 7;
        const start = position;
        // a chain out of order begins with a boot record that describes nothing
        if (!facts.ordered) position += 1;
        for (const [index, one] of logical.entries()) {
          if (index > 0) position += one.gap;
          const record = position * sector;
          position += one.lead;
          add(facts.ordered ? 5 + index : 4 + logical.length - index, one, record);
        }
        position += Math.max(2, facts.slack);
        extended = { number, start: start * sector, size: (position - start) * sector, type: '0f' };
      }
      for (const one of back) {
        position += one.gap;
        add(slots[slot++] as number, one);
      }
    }
    const total = table === 'none' ? position : position + tail + (table === 'gpt' ? 1 + entries : 0);
    return {
      name: 'd1',
      size: total * sector,
      logicalSectorSize: sector,
      model: '',
      serial: '',
      table: table === 'logical' ? 'dos' : (table as ImageDisk['table']),
      tableId:
        table === 'gpt' ? 'd3b07384-d113-4ec6-a7d4-0123456789ab' : table === 'none' ? '' : '0x0badcafe',
      bootArea: null,
      extended,
      partitions,
    };
  });

const build = (
  number: number,
  start: number,
  one: Part,
  gpt: boolean,
  sector: number,
  bootRecord: number | null,
): ImagePartition => {
  const { role, fs, method } = one.content;
  const type = gpt ? GPT_TYPE : fs === 'ntfs' ? '07' : '83';
  const size = one.sectors * sector;
  const minimumBytes = one.minimum === null ? null : Math.floor(one.minimum * size);
  return {
    ...partitionOf(number, start, size, { role, fs, method, type, label: gpt ? one.label : '' }),
    filesystem: { type: fs, uuid: '', label: '', minimumBytes, usedBytes: null },
    attributes: !gpt && one.bootable && bootRecord === null && number === 1 ? 'bootable' : '',
    bootRecord,
  };
};

/** What must hold of any layout that the planner or the shrinker makes. */
export const assertSound = (
  disk: Pick<ImageDisk, 'table' | 'logicalSectorSize' | 'size' | 'extended'>,
  places: readonly { name: string; start: number; size: number; bootRecord: number | null }[],
): void => {
  const { table, logicalSectorSize: sector, extended } = disk;
  const check = (holds: boolean, what: string) => {
    if (!holds) throw new Error(`${what}: ${JSON.stringify({ disk, places }, null, 1)}`);
  };
  const entries = Math.ceil(16384 / sector) * sector;
  const end = table === 'gpt' ? disk.size - sector - entries : disk.size;
  let position = table === 'gpt' ? 2 * sector + entries : table === 'none' ? 0 : sector;
  const ranges = places.flatMap(({ name, start, size, bootRecord }) => [
    { name, start, end: start + size },
    ...(bootRecord === null
      ? []
      : [{ name: `record of ${name}`, start: bootRecord, end: bootRecord + sector }]),
  ]);
  for (const range of ranges.sort((a, b) => a.start - b.start)) {
    check(range.start >= position, `${range.name} overlaps`);
    check(range.start % sector === 0 && range.end % sector === 0, `${range.name} off sectors`);
    check(range.end > range.start, `${range.name} is empty`);
    position = range.end;
  }
  check(position <= end, 'inside the disk');
  for (const { name, start, size, bootRecord } of places) {
    if (bootRecord === null) {
      const apart = !extended || start >= extended.start + extended.size || start + size <= extended.start;
      check(apart, `${name} lies in the extended partition`);
    } else {
      check(extended !== null && bootRecord >= extended.start, `${name}'s record outside`);
      check(extended !== null && start + size <= extended.start + extended.size, `${name} outside`);
      check(bootRecord < start, `${name} before its record`);
    }
  }
  if (extended) check(extended.start + extended.size <= disk.size, 'extended partition inside the disk');
};

/** The table that a disk has after this plan. */
export const tableOf = (plan: Plan): DiskTable => ({
  kind: plan.table,
  id: plan.tableId,
  logicalSectorSize: plan.disk.logicalSectorSize,
  size: plan.disk.size,
  extended: plan.extended,
  warnings: [],
  partitions: [...plan.partitions, ...plan.kept].map(
    ({ number, start, size, type, uuid, label, attributes, bootRecord }) => ({
      ...{ path: `/dev/sda${number}`, number, start, size, type, uuid, label, attributes, bootRecord },
    }),
  ),
});
