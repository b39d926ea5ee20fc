import test from 'ava';
import fc from 'fast-check';
import { smallestBtrfs } from '../../../agent/filesystem/btrfs-minimum.ts';

const MIB = 1024 * 1024;

/** A filesystem of one copy whose data are so many extents of a length. */
const contentsOf = (length: number, count: number) => {
  const used = length * count;
  return {
    used,
    once: used,
    allocated: Number.MAX_SAFE_INTEGER,
    metadata: 0,
    lengths: new Map([[length, count]]),
  };
};

test('small extents cost room for metadata, large ones what they leave empty, too large ones everything', (t) => {
  const total = 2048 * MIB;
  t.is(smallestBtrfs(contentsOf(4096, 100 * 256), total), 357 * MIB);
  const sizes = [1, 5, 10, 20].map((mib) => smallestBtrfs(contentsOf(mib * MIB, 200 / mib), total));
  t.deepEqual(
    sizes,
    sizes.toSorted((a, b) => a - b),
  );
  t.true((sizes[0] ?? 0) < 500 * MIB && (sizes[3] ?? 0) > 550 * MIB, String(sizes));
  t.is(smallestBtrfs(contentsOf(128 * MIB, 4), 1200 * MIB), 1200 * MIB, 'no chunk of a tenth holds one');
});

test('the minimum lies between what is in use and what there is, and grows with both copies and content', (t) => {
  const contents = fc.record({
    length: fc.integer({ min: 1, max: 30_000 }),
    count: fc.integer({ min: 0, max: 5000 }),
  });
  t.notThrows(() =>
    fc.assert(
      fc.property(contents, fc.integer({ min: 1, max: 2 ** 40 }), ({ length, count }, spare) => {
        const one = contentsOf(length * 4096, count);
        const total = one.used + spare;
        const minimum = smallestBtrfs(one, total);
        const doubled = smallestBtrfs({ ...one, used: one.used * 2 }, total + one.used);
        const more = smallestBtrfs(contentsOf(length * 4096, count + 1), total + length * 4096);
        return minimum >= one.used && minimum <= total && doubled >= minimum && more >= minimum;
      }),
    ),
  );
});
