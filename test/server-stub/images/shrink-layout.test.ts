import test from 'ava';
import { isImagingError } from '../../../agent/errors.ts';
import type { ImagePartition, Manifest } from '../../../agent/protocol/index.ts';
import { parseSize } from '../../../server-stub/cli/shrink.ts';
import { planShrink, smallestTargets, whyNot } from '../../../server-stub/images/shrink/layout.ts';
import { roundDown, roundUp } from '../../../server-stub/images/shrink/round.ts';
import { makeImage, manifestOf } from '../support.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

const base = manifestOf('lab', 11, makeImage(1), Buffer.from('map'));
const [template] = base.disks;

const partition = (number: number, type: string, size: number, minimum: number | null, extra = {}) => {
  const [one] = template?.partitions ?? [];
  if (!one) throw new Error('no template');
  const made: ImagePartition = {
    ...one,
    name: `p${number}`,
    number,
    size,
    role: 'data',
    method: 'used',
    filesystem: { type, uuid: '', label: '', minimumBytes: minimum, usedBytes: null },
    ...extra,
  };
  return made;
};

const manifestWith = (...parts: ImagePartition[]): Manifest => {
  let start = MIB;
  const partitions = parts.map((part) => {
    const placed = { ...part, start };
    start += part.size;
    return placed;
  });
  if (!template) throw new Error('no template');
  return { ...base, disks: [{ ...template, size: start + MIB, partitions }] };
};

const refusalOf = (work: () => unknown) => {
  try {
    work();
  } catch (error) {
    if (isImagingError(error)) return error;
    throw error;
  }
  throw new Error('nothing was refused');
};

test('what can give way does, the rest keeps its size', (t) => {
  const manifest = manifestWith(
    partition(1, 'vfat', 200 * MIB, null, { role: 'esp' }),
    partition(2, 'ext4', 30 * GIB, 5 * GIB),
    partition(3, 'xfs', 2 * GIB, null),
  );
  const { disks, smaller } = planShrink(manifest, { d1: 10 * GIB });
  t.deepEqual(
    smaller.map(({ partition: { name } }) => name),
    ['p2'],
  );
  const [disk] = disks;
  t.is(disk?.size, 10 * GIB);
  t.deepEqual(
    disk?.partitions.map(({ size }) => size),
    [200 * MIB, smaller[0]?.size, 2 * GIB],
  );
  t.true((smaller[0]?.size ?? 0) >= 5 * GIB);
});

test('a refusal names the size that would do, what sets it, and why', (t) => {
  const manifest = manifestWith(partition(1, 'ext4', 30 * GIB, 5 * GIB), partition(2, 'xfs', 8 * GIB, null));
  const { code, message, details } = refusalOf(() => planShrink(manifest, { d1: 10 * GIB }));
  t.is(code, 'TARGET_TOO_SMALL');
  t.regex(message, /p2 \(8589934592 bytes\) is XFS, which cannot be made smaller/);
  t.regex(message, /p1 needs 5368709120 bytes/);
  const needed = Number(details['neededBytes']);
  t.notThrows(() => planShrink(manifest, { d1: needed }));
  t.is(refusalOf(() => planShrink(manifest, { d1: needed - MIB })).code, 'TARGET_TOO_SMALL');
});

test('every kind that keeps its size says why', (t) => {
  const why = (type: string, extra = {}) => whyNot(partition(1, type, GIB, 1, extra));
  t.is(why('ext4'), null);
  t.is(why('ntfs'), null);
  t.is(why('xfs'), 'is XFS, which cannot be made smaller');
  t.is(why('f2fs'), 'is F2FS, which cannot be made smaller');
  t.is(why('vfat'), 'is FAT, which cannot be made smaller');
  t.is(why('exfat'), 'is exFAT, which cannot be made smaller');
  t.is(why('ext4', { method: 'raw', reason: 'it is damaged' }), 'is kept whole (it is damaged)');
  t.is(why('swap', { method: 'recreate' }), 'is swap, which keeps its size');
  t.is(why('ext4', { damaged: [{ start: 0, size: 512 }] }), 'has sectors that could not be read at capture');
  t.is(why('ntfs', { role: 'recovery' }), 'is the recovery partition, which keeps its size');
  t.is(
    whyNot(partition(1, 'ntfs', GIB, null)),
    'is NTFS, and nobody can say how small it may be',
    'a full volume',
  );
  t.is(why('LVM2_member'), null);
  const group = (facts: object) =>
    whyNot(
      partition(1, 'x', GIB, null, { filesystem: { type: 'LVM2_member', minimumBytes: null, ...facts } }),
    );
  t.is(group({}), 'is a physical volume of LVM, and nobody can say how small it may be', 'an older capture');
  t.is(
    group({ minimumReason: 'its volume group vg has 2 physical volumes' }),
    'is a physical volume of LVM, and its volume group vg has 2 physical volumes',
  );
  t.is(why('crypto_LUKS'), 'is encrypted (LUKS), which cannot be made smaller');
});

test('btrfs needs a server that runs as root, and says so', (t) => {
  const btrfs = partition(1, 'btrfs', GIB, 1);
  t.is(whyNot(btrfs), null);
  const { getuid } = process;
  process.getuid = () => 1000;
  try {
    t.is(whyNot(btrfs), 'is btrfs, which only a server that runs as root can make smaller (it mounts it)');
  } finally {
    if (getuid) process.getuid = getuid;
  }
});

test('the smallest sensible disk is smaller than the captured one and holds everything', (t) => {
  const manifest = manifestWith(partition(1, 'ext4', 30 * GIB, 5 * GIB));
  const targets = smallestTargets(manifest);
  t.true((targets['d1'] ?? 0) < 6 * GIB);
  t.is(planShrink(manifest, targets).smaller.length, 1);
  const full = manifestWith(partition(1, 'xfs', 30 * GIB, null));
  t.is(refusalOf(() => smallestTargets(full)).code, 'OPTION_REFUSED');
});

test('sizes that differ by a few sectors are rounded to one', (t) => {
  const size = 500_107_862_016;
  t.is(roundDown(size), roundDown(size - 34 * 512));
  t.true(roundDown(size) <= size && roundDown(size) > size * 0.999);
  t.is(roundDown(200 * MIB), 200 * MIB);
  t.true(roundDown(roundUp(size)) >= size);
});

test('sizes are read as they are written on disks, and "10G" is not guessed', (t) => {
  t.is(parseSize('10GB'), 10_000_000_000);
  t.is(parseSize('9.5 GiB'), 9.5 * GIB);
  t.is(parseSize('512mb'), 512_000_000);
  t.is(parseSize('123456'), 123456);
  for (const text of ['10G', '', 'GB', '-1', '0', '1e9', '10 20']) {
    t.is(refusalOf(() => parseSize(text)).code, 'BAD_REQUEST', text);
  }
});
