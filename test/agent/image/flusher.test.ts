import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import type { Device } from '../../../agent/image/device.ts';
import { chunksIn } from '../../../agent/image/durable.ts';
import { createFlusher } from '../../../agent/image/flusher.ts';
import { chunkUsage } from '../../../agent/image/grid.ts';
import { createFailure } from '../../../agent/image/lanes.ts';

const chunk = 65536;
const grid = chunkUsage([{ offset: 0, length: 200 * chunk }], chunk, 200 * chunk);

/** A device of which only the flush matters: it takes its time, or fails. */
const slowDevice = (flush: () => Promise<void>): Device => ({ flush }) as unknown as Device;

test('never more lies at risk than allowed, however slow the disk and whatever the order', async (t) => {
  const atRisk = 10 * chunk;
  const failure = createFailure();
  let written = 0;
  let durable = 0;
  let most = 0;
  const device = slowDevice(() => sleep(5));
  const onDurable = (ranges: [number, number][]): void => {
    durable = chunksIn(ranges, grid).length * chunk;
  };
  const flusher = createFlusher({ device, grid, atRisk, onDurable, failure });
  const write = async (number: number): Promise<void> => {
    await flusher.reserve(chunk);
    written += chunk;
    most = Math.max(most, written - durable);
    await sleep(number % 3);
    flusher.placed(number, chunk);
  };
  await Promise.all(grid.used.map(write));
  t.deepEqual(await flusher.finish(), [[0, 199]]);
  t.true(most <= atRisk, `${most} bytes at risk`);
  t.true(most > atRisk / 2, 'writing goes on while a flush is under way');
});

test('flushes go on behind a slow report, which is never overtaken and tells the newest state last', async (t) => {
  let flushes = 0;
  let open = 0;
  const told: number[] = [];
  const flusher = createFlusher({
    device: slowDevice(async () => {
      flushes += 1;
    }),
    grid,
    atRisk: 40 * chunk,
    onDurable: async (ranges) => {
      open += 1;
      t.is(open, 1);
      await sleep(20);
      told.push(chunksIn(ranges, grid).length);
      open -= 1;
    },
    failure: createFailure(),
  });
  for (const number of grid.used.slice(0, 40)) {
    await flusher.reserve(chunk);
    flusher.placed(number, chunk);
    await sleep(0);
  }
  await flusher.finish();
  t.true(flushes >= 2);
  t.is(told.at(-1), 40);
  t.deepEqual(
    told,
    told.toSorted((a, b) => a - b),
  );
});

test('a chunk with more places than the limit holds is written alone, and what waits behind it goes on', async (t) => {
  const flusher = createFlusher({
    device: slowDevice(() => sleep(1)),
    grid,
    atRisk: 4 * chunk,
    failure: createFailure(),
  });
  await flusher.reserve(chunk);
  flusher.placed(0, chunk);
  await flusher.reserve(50 * chunk);
  for (let number = 1; number <= 50; number += 1) flusher.placed(number, chunk);
  await flusher.reserve(chunk);
  flusher.placed(51, chunk);
  t.deepEqual(await flusher.finish(), [[0, 51]]);
});

test('a flush that fails ends every wait', async (t) => {
  const failure = createFailure();
  const device = slowDevice(async () => {
    await sleep(1);
    throw new Error('the disk is gone');
  });
  const flusher = createFlusher({ device, grid, atRisk: chunk, failure });
  await flusher.reserve(chunk);
  const waiting = flusher.reserve(chunk);
  flusher.placed(0, chunk);
  await t.throwsAsync(waiting, { message: 'the disk is gone' });
  await flusher.settle();
});
