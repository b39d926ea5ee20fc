import test from 'ava';
import fc from 'fast-check';
import { badSurfaceOf, collectBadBlocks } from '../../../agent/surface/bad-blocks.ts';
import { parseBadblocks } from '../../../agent/surface/badblocks.ts';
import { planBlocks } from '../../../agent/surface/block-plan.ts';
import { latencyCells } from '../../../agent/surface/latency.ts';

test('any disk: badblocks can count its blocks, and what it does not look at is less than one', (t) => {
  t.is(planBlocks(20e12, 512).blockSize, 8192);
  t.deepEqual(planBlocks(1_000_204_886_016, 4096), {
    ...{ blockSize: 4096, blocks: 244_190_646, atOnce: 256, tail: 0 },
  });
  const sizes = fc.tuple(fc.integer({ min: 1, max: 2 ** 46 }), fc.constantFrom(512, 4096, 8192, 65_536));
  fc.assert(
    fc.property(sizes, ([sectors, physical]) => {
      const size = sectors * 512;
      const { blockSize, blocks, atOnce, tail } = planBlocks(size, physical);
      t.true(blocks < 2 ** 32 && blockSize >= physical && atOnce >= 1 && tail < blockSize);
      t.is(blocks * blockSize + tail, size);
    }),
  );
});

test('bad blocks become ranges; what is beyond the list is counted', (t) => {
  const found = collectBadBlocks(4096, 2);
  const begun = [10, 11, 12, 50, 70, 71, 90].map((block) => found.add(block)?.offset ?? null);
  t.deepEqual(begun, [40_960, null, null, 204_800, 286_720, null, 368_640]);
  t.deepEqual(found.named(), [
    { offset: 40_960, length: 12_288 },
    { offset: 204_800, length: 4096 },
  ]);
  t.deepEqual(found.more(), { ranges: 2, sectors: 24 });
  t.deepEqual(badSurfaceOf(found.named(), found.more()), {
    ranges: [
      { lba: 80, sectors: 24, start: 40_960, size: 12_288 },
      { lba: 400, sectors: 8, start: 204_800, size: 4096 },
    ],
    ...{ more: { ranges: 2, sectors: 24 }, sectors: 56, bytes: 56 * 512 },
  });
});

test('any bad blocks in any order: every one is in a range or counted, and none besides', (t) => {
  const blocks = fc.uniqueArray(fc.integer({ min: 0, max: 60 }), { maxLength: 40 });
  fc.assert(
    fc.property(blocks, fc.integer({ min: 1, max: 6 }), (all, most) => {
      const found = collectBadBlocks(512, most);
      for (const block of all) found.add(block);
      const { ranges, sectors } = badSurfaceOf(found.named(), found.more());
      t.is(sectors, all.length);
      const named = ranges.flatMap(({ lba, sectors }) =>
        Array.from({ length: sectors }, (_, at) => lba + at),
      );
      t.true(named.every((block) => all.includes(block)));
    }),
  );
});

test('what badblocks says: its progress, its end, anything else', (t) => {
  const first = 'Checking for bad blocks (read-only test):   0.00% done, 0:00 elapsed. (0/0/0 errors)';
  t.deepEqual(parseBadblocks(first), { kind: 'share', share: 0 });
  t.deepEqual(parseBadblocks(' 62.50% done, 1:02:01 elapsed. (16/0/0 errors)'), {
    ...{ kind: 'share', share: 0.625 },
  });
  t.is(parseBadblocks('Pass completed, 24 bad blocks found. (24/0/0 errors)').kind, 'completed');
  t.is(parseBadblocks('Too many bad blocks, aborting test').kind, 'too many');
  t.is(parseBadblocks('badblocks: No such file or directory while trying to open').kind, 'other');
});

test('a latency map has at most 256 cells, and they cover the disk', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2 ** 46 }), (sectors) => {
      const { cellBytes, count } = latencyCells(sectors * 512);
      t.true(count >= 1 && count <= 256 && cellBytes * count >= sectors * 512);
      t.true(cellBytes * (count - 1) < sectors * 512);
    }),
  );
});
