import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { busyBetween, createBusyMeter } from '../../../agent/image/busy.ts';
import type { PoolUsage } from '../../../agent/image/pool.ts';
import { testPool } from './helpers.ts';

const usage = (more: Partial<PoolUsage>): PoolUsage => ({
  ...{ read: 0, hash: 0, codec: 0, write: 0, idle: 0, starved: { write: 0, network: 0 } },
  ...more,
});

test('shares are of the workers’ time, waits count for what was waited for, the largest is the bottleneck', (t) => {
  const after = usage({ read: 2, hash: 1, codec: 4, write: 1, starved: { write: 6, network: 2 } });
  const { busy, bottleneck } = busyBetween(usage({}), after, 10, { workers: 2 });
  t.deepEqual(busy, { read: 0.1, hash: 0.05, codec: 0.2, network: 0.1, write: 0.35 });
  t.is(bottleneck, 'write');
  // one reader that is always at work is a disk that cannot go faster
  const turning = busyBetween(usage({}), usage({ read: 9, codec: 9 }), 10, { workers: 2, readers: 1 });
  t.is(turning.bottleneck, 'read');
});

test('a meter tells of the last seconds, not of all the time', (t) => {
  let clock = 0;
  let now = usage({});
  const meter = createBusyMeter({ workers: 1, usage: () => now }, 1, () => clock * 1000);
  t.is(meter(), null, 'nothing was done yet');
  for (clock = 1; clock <= 60; clock += 1) {
    now = usage({ read: clock });
    meter();
  }
  t.is(meter()?.bottleneck, 'read');
  for (; clock <= 70; clock += 1) {
    now = usage({ read: 60, starved: { write: 0, network: (clock - 60) * 0.9 } });
    meter();
  }
  const reading = meter();
  t.is(reading?.bottleneck, 'network');
  t.is(reading?.busy.read, 0);
  t.true(Math.abs((reading?.busy.network ?? 0) - 0.9) < 0.2, String(reading?.busy.network));
});

test('idle workers are starved by what was waited for meanwhile; the disk goes before the network', async (t) => {
  const pool = testPool(t);
  const before = pool.usage();
  await pool.waiting('network', () => pool.waiting('write', () => sleep(50)));
  const between = pool.usage();
  t.true(between.starved.write > 0.05, 'two idle workers, 50 ms');
  t.is(between.starved.network - before.starved.network < 0.02, true);
  await pool.waiting('network', () => sleep(50));
  const after = pool.usage();
  t.true(after.starved.network - between.starved.network > 0.05);
  t.true(after.starved.network + after.starved.write <= after.idle);
});
