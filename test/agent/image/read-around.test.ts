import test from 'ava';
import fc from 'fast-check';
import type { Extent } from '../../../agent/image/extent.ts';
import { readInPasses } from '../../../agent/image/passes.ts';
import { readAround } from '../../../agent/image/read-around.ts';

const SECTOR = 512;

const mediumError = (): Error => Object.assign(new Error('i/o error'), { code: 'EIO' });

/** A device of which some sectors fail; counts failed reads, each of which takes `seconds` of its own clock. */
const sickDevice = (bad: ReadonlySet<number>, seconds = 0) => {
  const state = { failures: 0, reads: [] as Extent[], clock: 0 };
  const read = (offset: number, length: number): void => {
    state.reads.push({ offset, length });
    for (let at = offset; at < offset + length; at += SECTOR) {
      if (!bad.has(at / SECTOR)) continue;
      state.failures += 1;
      state.clock += seconds * 1000;
      throw mediumError();
    }
  };
  return { state, options: { step: SECTOR, read, now: () => state.clock } };
};

const sectorsOf = (extents: readonly Extent[]): number[] =>
  extents.flatMap(({ offset, length }) =>
    Array.from({ length: length / SECTOR }, (_, at) => offset / SECTOR + at),
  );

test('exactly the bad sectors are found, and every other one of the spans is read', (t) => {
  const sector = fc.integer({ min: 0, max: 2047 });
  fc.assert(
    fc.property(fc.uniqueArray(sector, { maxLength: 60 }), sector, sector, (bad, one, two) => {
      const [from, to] = [Math.min(one, two), Math.max(one, two) + 1];
      const spans = [{ offset: from * SECTOR, length: (to - from) * SECTOR }];
      const { options, state } = sickDevice(new Set(bad));
      const found = readAround(spans, { ...options, seconds: 1 });
      const expected = bad.filter((number) => number >= from && number < to).toSorted((a, b) => a - b);
      t.deepEqual(sectorsOf(found.bad), expected);
      t.deepEqual(found.untried, []);
      const good = new Set(
        sectorsOf(state.reads.filter((piece) => !sectorsOf([piece]).some((number) => bad.includes(number)))),
      );
      for (let number = from; number < to; number += 1) {
        t.true(good.has(number) || bad.includes(number), `sector ${number} was read`);
        t.false(good.has(number) && bad.includes(number));
      }
      t.true([...good].every((number) => number >= from && number < to));
    }),
    { numRuns: 200 },
  );
});

test('where bad sectors take seconds, the time ends it, and what was not tried is said apart', (t) => {
  const bad = new Set(Array.from({ length: 2048 }, (_, number) => number));
  const { options, state } = sickDevice(bad, 7);
  const { bad: found, untried } = readAround([{ offset: 0, length: 1024 * 1024 }], {
    ...options,
    seconds: 60,
  });
  t.true(state.failures <= 9, `${state.failures} reads of 7 s in 60 s`);
  t.is(sectorsOf(found).length + sectorsOf(untried).length, 2048);
});

test('one bad sector costs a few failed reads, not its block', (t) => {
  const { options, state } = sickDevice(new Set([300]));
  t.deepEqual(readAround([{ offset: 0, length: 1024 * 1024 }], { ...options, seconds: 60, retries: 0 }).bad, [
    { offset: 300 * SECTOR, length: SECTOR },
  ]);
  t.true(state.failures <= 3, `${state.failures}`);
});

test('an error that speaks of the whole device is no bad sector', (t) => {
  const read = (): void => {
    throw Object.assign(new Error('no such device'), { code: 'ENXIO' });
  };
  const spans = [{ offset: 0, length: 4096 }];
  t.throws(() => readAround(spans, { step: SECTOR, read, seconds: 1 }), { message: 'no such device' });
});

/** Chunks of a disk, of which some fail; notes in which order they are asked for. */
const sickChunks = (bad: ReadonlySet<number>) => {
  const tried: number[] = [];
  const rescued: { number: number; seconds: number }[] = [];
  let clock = 0;
  const passes = readInPasses({
    start: async (number) => {
      tried.push(number);
      if (bad.has(number)) passes.failed(number);
      else passes.succeeded(number);
    },
    drain: async () => undefined,
    rescue: async (number, seconds) => {
      rescued.push({ number, seconds });
      clock += seconds * 1000;
    },
    onRescue: () => undefined,
    now: () => clock,
  });
  return { passes, tried, rescued };
};

test('a sick zone is skipped at first, narrowed from behind, and read around last; nothing is left out', async (t) => {
  const numbers = Array.from({ length: 5000 }, (_, number) => number);
  const zone = new Set(numbers.slice(1000, 3000));
  const { passes, tried, rescued } = sickChunks(zone);
  await passes.run(numbers);
  const failures = tried.filter((number) => zone.has(number));
  t.true(failures.length < 30, `${failures.length} chunks of the zone failed before the easy ones were read`);
  const handled = [...tried.filter((number) => !zone.has(number)), ...rescued.map(({ number }) => number)];
  t.deepEqual(
    handled.toSorted((a, b) => a - b),
    numbers,
    'each chunk exactly once',
  );
  const all = rescued.reduce((sum, { seconds }) => sum + seconds, 0);
  t.true(all <= 4 * 3600 + 60, `${all} s for 2000 dead chunks`);
});

test('a sound disk is read in order, once', async (t) => {
  const { passes, tried, rescued } = sickChunks(new Set());
  await passes.run([1, 2, 5, 9]);
  t.deepEqual(tried, [1, 2, 5, 9]);
  t.deepEqual(rescued, []);
});
