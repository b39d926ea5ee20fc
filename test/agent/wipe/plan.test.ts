import { createCipheriv, randomBytes } from 'node:crypto';
import test from 'ava';
import fc from 'fast-check';
import type { ByteRange } from '../../../agent/protocol/index.ts';
import { fillPattern } from '../../../agent/wipe/pattern.ts';
import { blocksOf, bytesOf, EDGE_BYTES, planPasses } from '../../../agent/wipe/plan.ts';
import { samplePlaces } from '../../../agent/wipe/sample.ts';
import { missedOf } from '../../../agent/wipe/wipe-disk.ts';

const KEY = '00112233445566778899aabbccddeeff'.repeat(2);
const MIB = 1024 * 1024;

/** Sizes of disks: any number of sectors of 512 or 4096 bytes, tiny ones too. */
const disks = fc
  .tuple(
    fc.constantFrom(512, 4096),
    fc.oneof(fc.integer({ min: 1, max: 400_000 }), fc.integer({ min: 1, max: 2 ** 36 })),
  )
  .map(([sector, count]) => ({ sector, size: sector * count }));

const isCovered = (ranges: readonly ByteRange[], size: number): boolean => {
  let at = 0;
  for (const range of ranges) {
    if (range.start !== at) return false;
    at += range.size;
  }
  return at === size;
};

test('normal is one random pass over all of the disk, full is three with keys of their own, or as many as are asked for', (t) => {
  const normal = planPasses('normal', 1000 * 512);
  t.deepEqual(
    normal.map(({ ranges }) => ranges),
    [[{ start: 0, size: 512_000 }]],
  );
  const full = planPasses('full', 4096);
  t.is(full.length, 3);
  t.is(new Set(full.map(({ key }) => key)).size, 3);
  t.true(full.every(({ key }) => /^[0-9a-f]{64}$/.test(key ?? '')));
  t.is(planPasses('full', 4096, { passes: 7 }).length, 7);
});

test('fast is zeros over both ends; a disk that is no larger than both is overwritten whole', (t) => {
  const [pass] = planPasses('fast', 100 * MIB);
  t.is(pass?.key, null);
  t.deepEqual(pass?.ranges, [
    { start: 0, size: EDGE_BYTES },
    { start: 60 * MIB, size: EDGE_BYTES },
  ]);
  t.deepEqual(planPasses('fast', 80 * MIB)[0]?.ranges, [{ start: 0, size: 80 * MIB }]);
  t.deepEqual(planPasses('fast', 512)[0]?.ranges, [{ start: 0, size: 512 }]);
});

test('any disk: the blocks of a pass lie one behind the other, on sectors, and cover it', (t) => {
  fc.assert(
    fc.property(disks, ({ sector, size }) => {
      fc.pre(size <= 4096 * 400_000);
      for (const mode of ['fast', 'normal'] as const) {
        for (const { ranges } of planPasses(mode, size)) {
          const blocks = [...blocksOf(ranges, MIB)];
          if (mode === 'normal' && !isCovered(blocks, size)) return false;
          if (bytesOf(blocks) !== bytesOf(ranges)) return false;
          if (blocks.some((block) => block.size <= 0 || block.size > MIB || block.start % sector !== 0))
            return false;
          if (blocks.some((block) => block.size % sector !== 0 || block.start + block.size > size))
            return false;
        }
      }
      return true;
    }),
    { numRuns: 60 },
  );
  t.pass();
});

test('any part of a pass is the same as in one long stream of AES-256-CTR', (t) => {
  const stream = createCipheriv('aes-256-ctr', Buffer.from(KEY, 'hex'), Buffer.alloc(16)).update(
    Buffer.alloc(300_000),
  );
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 200_000 }),
      fc.integer({ min: 0, max: 100_000 }),
      (offset, length) => {
        const part = Buffer.alloc(length, 0xee);
        fillPattern(part, KEY, offset);
        return part.equals(stream.subarray(offset, offset + length));
      },
    ),
  );
  const zeros = randomBytes(1000);
  fillPattern(zeros, null, 12_345);
  t.true(zeros.every((byte) => byte === 0));
});

test('beyond 4 GiB and 64 GiB the counter goes on: neighbours fit together, and nothing repeats', (t) => {
  for (const border of [2 ** 32, 2 ** 36, 2 ** 44]) {
    const both = Buffer.alloc(128);
    fillPattern(both, KEY, border - 64);
    const behind = Buffer.alloc(64);
    fillPattern(behind, KEY, border);
    t.true(both.subarray(64).equals(behind));
    const start = Buffer.alloc(64);
    fillPattern(start, KEY, 0);
    t.false(start.equals(behind));
  }
});

test('a sample: two places of 5 % in each of 1000 parts, both ends, on sectors, apart and in order', (t) => {
  fc.assert(
    fc.property(disks, ({ sector, size }) => {
      const places = samplePlaces(size, sector);
      const end = places.at(-1);
      if (places[0]?.start !== 0 || !end || end.start + end.size !== size) return false;
      if (
        places.some(({ start, size: length }) => start % sector !== 0 || length % sector !== 0 || length <= 0)
      )
        return false;
      if (
        places.some(
          ({ start }, at) =>
            at > 0 && start <= bytesOf(places.slice(at - 1, at)) + (places[at - 1]?.start ?? 0),
        )
      )
        return false;
      return bytesOf(places) >= Math.min(size, size / 10);
    }),
    { numRuns: 40 },
  );
  t.pass();
});

test('a sample is another one every time, and every part has its two places', (t) => {
  const size = 1_000_204_886_016;
  const places = samplePlaces(size, 512);
  t.notDeepEqual(places, samplePlaces(size, 512));
  for (let part = 0; part < 1000; part++) {
    const [from, to] = [(size / 1000) * part, (size / 1000) * (part + 1)];
    const inside = places.reduce(
      (sum, { start, size: length }) =>
        sum + Math.max(0, Math.min(to, start + length) - Math.max(from, start)),
      0,
    );
    // a place may be the neighbour's by a sector
    if (inside < (to - from) * 0.1 - 8192) t.fail(`part ${part}: ${inside}`);
  }
});

test('what was missed is named in the disk’s own sectors', (t) => {
  const extents = [
    { offset: 8192, length: 4096 },
    { offset: 40_960, length: 8192 },
  ];
  t.deepEqual(missedOf(extents, 4096), {
    sectors: 3,
    ranges: [
      { lba: 2, sectors: 1 },
      { lba: 10, sectors: 2 },
    ],
  });
  t.is(missedOf(extents, 512).sectors, 24);
});
