import test from 'ava';
import { createMeter } from '../../../agent/progress/meter.ts';

const fakeClock = () => {
  let at = 0;
  return { now: () => at, pass: (seconds: number) => (at += seconds * 1000) };
};

test('a meter reports rate and time left over its window', (t) => {
  const clock = fakeClock();
  const meter = createMeter(1000, clock.now);
  for (let second = 0; second < 4; second++) {
    clock.pass(1);
    meter.add(100);
  }
  const { done, rate, etaSeconds } = meter.read();
  t.is(done, 400);
  t.is(rate, 100);
  t.is(etaSeconds, 6);
});

test('a meter that stops moving says for how long and knows no time left', (t) => {
  const clock = fakeClock();
  const meter = createMeter(1000, clock.now);
  clock.pass(1);
  meter.add(100);
  clock.pass(20);
  const { stalledSeconds, rate, etaSeconds } = meter.read();
  t.is(stalledSeconds, 20);
  t.is(rate, 0);
  t.is(etaSeconds, null);
});

test('a finished meter has no time left, whatever its rate', (t) => {
  const clock = fakeClock();
  const meter = createMeter(10, clock.now);
  meter.add(10);
  clock.pass(30);
  t.is(meter.read().etaSeconds, 0);
});
