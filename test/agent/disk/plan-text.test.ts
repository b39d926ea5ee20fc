import test from 'ava';
import fc from 'fast-check';
import { planText, sizeText } from '../../../agent/disk/plan-text.ts';
import { planDeploy } from '../../../agent/disk/planner.ts';
import type { ImageDisk } from '../../../agent/protocol/index.ts';
import { anyDisk, tableOf } from './layout-cases.ts';
import { GIB, imageOf, MIB, partitionOf, target } from './planner-cases.ts';

const windows = imageOf({
  size: 64 * GIB,
  partitions: [
    partitionOf(1, MIB, 100 * MIB, { role: 'esp', fs: 'vfat' }),
    partitionOf(2, 101 * MIB, 16 * MIB, { role: 'msr', fs: '', method: 'raw' }),
    partitionOf(3, 117 * MIB, 40 * GIB, { role: 'os', fs: 'ntfs', label: 'Windows' }),
    partitionOf(4, 117 * MIB + 40 * GIB, 600 * MIB, {
      role: 'recovery',
      fs: 'ntfs',
      label: '\u001b[2JRE\u202e',
    }),
    partitionOf(5, 42 * GIB, 20 * GIB, { role: 'data', fs: 'ntfs', label: 'Daten' }),
  ],
});
const uefi = { firmware: 'uefi', grow: true } as const;
const disk = windows.disks[0] as ImageDisk;

const drawn = `debian version 1, d1 (64 GiB)
to disk S1 (128 GiB), new GPT

image  |p1|p2|p3==========|p4|.|p5=====|.|
disk   |p1|p2|p3================++++++++++++++++++++++++++++++|p4|p5========|
       = from the image   + won   . free

    role      content  size               what            label
p1  esp       vfat     100 MiB            written
p2  msr       raw      16 MiB             written
p3  os        ntfs     40 GiB -> 107 GiB  written, grown  Windows
p4  recovery  ntfs     600 MiB            written, moved  ?[2JRE?
p5  data      ntfs     20 GiB             written, moved  Daten

! p4 (recovery) moves towards the end of the disk
! p5 (data) moves towards the end of the disk`;

test('a person sees both layouts, what grows, moves and is kept', (t) => {
  const onto = target({ size: 128 * GIB });
  const plan = planDeploy(windows, onto, { ...uefi, growPartition: 3 });
  t.is(planText(plan, disk), drawn);
  const kept = planDeploy(windows, onto, { ...uefi, growPartition: 3, keep: [5], present: tableOf(plan) });
  t.regex(planText(kept, disk), /p5 +data +ntfs +20 GiB +kept +Daten/);
  t.regex(planText(kept, disk), /#####/);
});

test('sizes in three digits', (t) => {
  t.deepEqual(
    [0, 512, 1024, 1536, 1048300, MIB, 100 * MIB, 19.6 * GIB, 1000204886016, 4096 * GIB].map(sizeText),
    [
      '0 bytes',
      '512 bytes',
      '1 KiB',
      '1.50 KiB',
      '1 MiB',
      '1 MiB',
      '100 MiB',
      '19.6 GiB',
      '932 GiB',
      '4 TiB',
    ],
  );
});

test('any plan: 80 columns, below 4000 characters, nothing that a terminal obeys', (t) => {
  fc.assert(
    fc.property(
      anyDisk,
      fc.nat(4_000_000),
      fc.string({ unit: 'binary', maxLength: 300 }),
      (source, more, hostile) => {
        const sector = source.logicalSectorSize;
        const image = { ...imageOf({ size: source.size, partitions: [] }), disks: [source] };
        const onto = target({ size: source.size + more * sector, logicalSectorSize: sector });
        const plan = planDeploy(image, { ...onto, serial: hostile }, uefi);
        const warned = { ...plan, warnings: [...plan.warnings, hostile, hostile.replaceAll(' ', '')] };
        const relabelled = warned.partitions.map((one) => ({ ...one, label: hostile.slice(0, 36) }));
        const text = planText({ ...warned, partitions: relabelled }, source);
        if (text.length >= 4000) throw new Error(`${text.length} characters`);
        for (const line of text.split('\n')) {
          if ([...line].length > 80) throw new Error(`too wide: ${line}`);
          if (/[\p{Cc}\p{Cf}\p{Cs}]/u.test(line)) throw new Error(`unsafe: ${JSON.stringify(line)}`);
        }
        for (const { name } of plan.partitions) {
          if (!text.includes(`\n${name} `)) throw new Error(`${name} is missing`);
        }
      },
    ),
    { numRuns: 300 },
  );
  t.pass();
});

test('128 partitions are told in short', (t) => {
  const partitions = Array.from({ length: 128 }, (_value, index) =>
    partitionOf(index + 1, (index + 1) * 16 * MIB, 8 * MIB, { role: 'data', label: 'x'.repeat(36) }),
  );
  const image = imageOf({ size: 4 * GIB, partitions });
  const text = planText(planDeploy(image, target({ size: 4 * GIB }), uefi), image.disks[0] as ImageDisk);
  t.regex(text, /and 104 more/);
  t.true(text.length < 4000);
});
