import { readFileSync } from 'node:fs';
import test from 'ava';
import { isHybridMbr } from '../../../agent/disk/gpt.ts';
import { partitionPath } from '../../../agent/disk/partition-nodes.ts';
import { planDeploy } from '../../../agent/disk/planner.ts';
import { parseSfdisk, sfdiskScript } from '../../../agent/disk/sfdisk.ts';
import { compareTable, type DiskTable } from '../../../agent/disk/table.ts';
import type { Plan } from '../../../agent/protocol/index.ts';
import { imageOf, MIB, partitionOf, target } from './planner-cases.ts';

const fixture = (name: string): string => readFileSync(`test/fixtures/tools/sfdisk/${name}.json`, 'utf8');

const plan = (): Plan => {
  const image = imageOf({
    size: 64 * MIB,
    partitions: [partitionOf(1, MIB, 20 * MIB, { label: 'a "b", c' }), partitionOf(3, 30 * MIB, MIB)],
  });
  return planDeploy(image, target({ size: 64 * MIB }), { firmware: 'uefi', grow: false });
};

test('a GPT in bytes, GUIDs in lower case', (t) => {
  t.deepEqual(parseSfdisk(fixture('gpt'), 64 * MIB), {
    kind: 'gpt',
    id: 'd3b07384-d113-4ec6-a7d4-0123456789ab',
    logicalSectorSize: 512,
    size: 64 * MIB,
    extended: null,
    warnings: [],
    partitions: [
      {
        path: '/dev/nvme0n1p1',
        number: 1,
        start: MIB,
        size: 20 * MIB,
        type: 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b',
        uuid: '11111111-1111-4111-8111-111111111111',
        label: '',
        attributes: 'RequiredPartition GUID:63',
        bootRecord: null,
      },
    ],
  });
});

test('an MBR with two-digit types', (t) => {
  const table = parseSfdisk(fixture('dos'), 64 * MIB);
  t.is(table.id, '0x0badcafe');
  t.deepEqual(
    table.partitions.map(({ number, start, size, type, attributes }) => [
      number,
      start,
      size,
      type,
      attributes,
    ]),
    [
      [1, MIB, 20 * MIB, '07', 'bootable'],
      [2, 21 * MIB, 10 * MIB, '82', ''],
    ],
  );
});

test('other kinds of tables are unsupported, and what Linux does not look into', (t) => {
  for (const [from, to, reason] of [
    ['"dos"', '"sun"', /of kind sun/],
    ['"82"', '"c5"', /DR-DOS/],
    ['"82"', '"ee"', /GPT is damaged/],
  ] as const) {
    t.throws(() => parseSfdisk(fixture('dos').replace(from, to), 64 * MIB), {
      code: 'LAYOUT_UNSUPPORTED',
      message: reason,
    });
  }
  const two = fixture('dos').replace('"82"', '"f"').replace('"7"', '"5"');
  t.throws(() => parseSfdisk(two, 64 * MIB), { code: 'LAYOUT_UNSUPPORTED', message: /several extended/ });
  t.throws(() => parseSfdisk('{', 64 * MIB), { code: 'TOOL_FAILED' });
});

test('an extended partition is the container, not a partition', (t) => {
  const table = parseSfdisk(fixture('dos').replace('"82"', '"f"'), 64 * MIB);
  t.deepEqual(table.extended, { number: 2, start: 21 * MIB, size: 10 * MIB, type: '0f' });
  t.deepEqual(
    table.partitions.map(({ number }) => number),
    [1],
  );
});

/** a disk with these partition nodes, as sfdisk would print it */
const printed = (device: string, nodes: readonly string[]): string =>
  JSON.stringify({
    partitiontable: {
      ...{
        label: 'gpt',
        id: 'D3B07384-D113-4EC6-A7D4-0123456789AB',
        device,
        unit: 'sectors',
        sectorsize: 512,
      },
      partitions: nodes.map((node, index) => ({
        ...{ node, start: 2048 * (index + 1), size: 2048 },
        type: '0FC63DAF-8483-4772-8E79-3D69D8477DE4',
      })),
    },
  });

for (const [device, separator] of [
  ['/dev/sda', ''],
  ['/dev/sdab', ''],
  ['/dev/xvda', ''],
  ['/dev/vdz', ''],
  ['/dev/nvme0n1', 'p'],
  ['/dev/nvme10n11', 'p'],
  ['/dev/mmcblk0', 'p'],
  ['/dev/md0', 'p'],
  ['/dev/md127', 'p'],
  ['/dev/loop3', 'p'],
  ['/dev/cciss/c0d0', 'p'],
] as const) {
  test(`partitions 1, 2, 10, 11 and 128 of ${device}`, (t) => {
    const numbers = [11, 1, 128, 10, 2];
    const nodes = numbers.map((number) => `${device}${separator}${number}`);
    t.deepEqual(
      parseSfdisk(printed(device, nodes), 64 * MIB).partitions.map(({ number }) => number),
      numbers,
    );
    t.deepEqual(
      numbers.map((number) => partitionPath(device, number)),
      nodes,
    );
    const beyond = printed(device, [`${device}${separator}129`]);
    t.throws(() => parseSfdisk(beyond, 64 * MIB), { code: 'LAYOUT_UNSUPPORTED' });
  });
}

test('a script names every partition by its number, in sectors, and leaves names to gpt.ts', (t) => {
  t.is(
    sfdiskScript(plan(), '/dev/nvme0n1', { start: 34 * 512, end: 64 * MIB - 33 * 512 }),
    `label: gpt
label-id: d3b07384-d113-4ec6-a7d4-0123456789ab
unit: sectors
first-lba: 34
last-lba: 131038

/dev/nvme0n1p1 : start=2048, size=40960, type=0fc63daf-8483-4772-8e79-3d69d8477de4, uuid=0b8bd0c5-1a2f-4f5e-9c55-000000000001
/dev/nvme0n1p3 : start=61440, size=2048, type=0fc63daf-8483-4772-8e79-3d69d8477de4, uuid=0b8bd0c5-1a2f-4f5e-9c55-000000000003
`,
  );
});

test('a manifest cannot smuggle lines into the script', (t) => {
  const evil = 'GUID:1"\nlabel: dos';
  for (const change of [{ attributes: evil }, { type: evil }, { uuid: evil }, { start: 100 }]) {
    const base = plan();
    const [first, ...rest] = base.partitions;
    if (!first) throw new Error('no partition');
    const changed = { ...base, partitions: [{ ...first, ...change }, ...rest] };
    t.throws(() => sfdiskScript(changed, '/dev/sda', { start: 0, end: 64 * MIB }), { code: 'IMAGE_INVALID' });
  }
  t.throws(() => sfdiskScript({ ...plan(), tableId: evil }, '/dev/sda', { start: 0, end: 0 }), {
    code: 'IMAGE_INVALID',
  });
});

test('a table is compared with its plan field by field', (t) => {
  const wanted = plan();
  const table: DiskTable = {
    kind: 'gpt',
    id: wanted.tableId,
    logicalSectorSize: 512,
    size: 64 * MIB,
    extended: null,
    warnings: [],
    partitions: wanted.partitions.map((partition) => ({ ...partition, path: '' })),
  };
  t.deepEqual(compareTable(table, wanted), []);
  for (const change of [
    { start: 0 },
    { size: 1 },
    { label: 'a "b"' },
    { uuid: 'other' },
    { type: 'other' },
    { attributes: 'GUID:1' },
    { number: 9 },
    { bootRecord: MIB },
  ]) {
    const [first, ...rest] = table.partitions;
    if (!first) throw new Error('no partition');
    t.is(compareTable({ ...table, partitions: [{ ...first, ...change }, ...rest] }, wanted).length, 1);
  }
  t.is(compareTable({ ...table, kind: 'dos' }, wanted).length, 1);
  t.is(compareTable({ ...table, id: 'x' }, wanted).length, 1);
  t.is(compareTable({ ...table, partitions: table.partitions.slice(1) }, wanted).length, 2);
  const extended = { number: 4, start: MIB, size: MIB, type: '05' };
  t.is(compareTable({ ...table, extended }, wanted).length, 4);
  const [kept, ...written] = wanted.partitions;
  if (!kept) throw new Error('no partition');
  t.deepEqual(compareTable(table, { ...wanted, partitions: written, kept: [kept] }), []);
});

test('a protective MBR alone is no hybrid', (t) => {
  const sector = Buffer.alloc(512);
  sector[446 + 4] = 0xee;
  t.false(isHybridMbr(sector));
  sector[462 + 4] = 0x07;
  t.true(isHybridMbr(sector));
  sector[446 + 4] = 0x83;
  t.false(isHybridMbr(sector));
});
