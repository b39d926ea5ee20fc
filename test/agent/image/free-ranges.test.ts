import test from 'ava';
import fc from 'fast-check';
import { freeRanges } from '../../../agent/image/free-ranges.ts';
import { chunkUsage } from '../../../agent/image/grid.ts';
import { normaliseExtents } from '../../../agent/image/used-map.ts';

const CHUNK = 65536;

test('free ranges and used chunks cover a partition together, and never overlap', (t) => {
  const extent = fc.record({ offset: fc.nat(40 * CHUNK), length: fc.integer({ min: 1, max: 3 * CHUNK }) });
  const property = fc.property(
    fc.array(extent, { maxLength: 12 }),
    fc.integer({ min: 1, max: 40 * CHUNK }),
    (extents, size) => {
      const grid = chunkUsage(normaliseExtents(extents, size), CHUNK, size);
      const owner = new Array<string>(grid.count).fill('');
      for (const number of grid.used) owner[number] += 'used';
      for (const range of freeRanges(grid)) {
        t.true(range.start + range.size <= size);
        for (let at = range.start; at < range.start + range.size; at += CHUNK) owner[at / CHUNK] += 'free';
      }
      t.true(owner.every((one) => one === 'used' || one === 'free'));
    },
  );
  fc.assert(property);
});

test('of too many ranges the longest remain, in order', (t) => {
  const used = [0, 2, 5, 6, 10].map((number) => ({ offset: number * CHUNK, length: 1 }));
  const grid = chunkUsage(used, CHUNK, 11 * CHUNK);
  t.deepEqual(freeRanges(grid, 2), [
    { start: 3 * CHUNK, size: 2 * CHUNK },
    { start: 7 * CHUNK, size: 3 * CHUNK },
  ]);
});
