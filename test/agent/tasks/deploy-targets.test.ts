import test from 'ava';
import { selectDisks } from '../../../agent/disk/select.ts';
import { pairDisks } from '../../../agent/tasks/deploy-targets.ts';
import { diskOf } from '../disk/disk-cases.ts';
import { imageOf } from '../disk/planner-cases.ts';

const here = Object.entries({ sda: 'A', sdb: 'B', sdc: 'C' }).map(([name, serial]) =>
  diskOf(name, { serial }),
);

const twoDisks = (serials: [string, string]) => {
  const manifest = imageOf({ size: 512_110_190_592, partitions: [] });
  const [first] = manifest.disks;
  if (!first) throw new Error('no disk');
  return {
    ...manifest,
    disks: serials.map((serial, at) => ({ ...first, name: `d${at + 1}`, serial })),
  };
};

test('an image of several disks goes to the disks that are named, in that order', (t) => {
  const pairs = pairDisks(twoDisks(['X', 'Y']), here, { disks: [{ serial: 'C' }, { serial: 'A' }] });
  t.deepEqual(
    pairs.map(({ image, disk: { serial } }) => [image.name, serial]),
    [
      ['d1', 'C'],
      ['d2', 'A'],
    ],
  );
});

test('without names only the very disks that were captured will do', (t) => {
  const pairs = pairDisks(twoDisks(['B', 'A']), here, {});
  t.deepEqual(
    pairs.map(({ disk: { serial } }) => serial),
    ['B', 'A'],
  );
  t.throws(() => pairDisks(twoDisks(['X', 'A']), here, {}), { code: 'DISK_NOT_FOUND' });
  t.throws(() => pairDisks(twoDisks(['', 'A']), here, {}), { code: 'DISK_AMBIGUOUS' });
});

test('too few or too many names are refused, and so is one disk named twice', (t) => {
  const image = twoDisks(['X', 'Y']);
  t.throws(() => pairDisks(image, here, { disks: [{ serial: 'A' }] }), { code: 'DISK_AMBIGUOUS' });
  t.throws(() => pairDisks(image, here, { disks: [{ serial: 'A' }, { serial: 'A' }] }), {
    code: 'DISK_AMBIGUOUS',
    message: /d1 and d2 are the same disk/,
  });
  t.throws(
    () =>
      pairDisks(imageOf({ size: 512_110_190_592, partitions: [] }), here, {
        disks: [{ serial: 'A' }, { serial: 'B' }],
      }),
    {
      code: 'DISK_AMBIGUOUS',
    },
  );
});

test('each hint is asked for on its own: one that fits two disks stays ambiguous', (t) => {
  t.throws(() => selectDisks(here, [{ serial: 'A' }, { size: 512_110_190_592 }], 'capture'), {
    code: 'DISK_AMBIGUOUS',
  });
});
