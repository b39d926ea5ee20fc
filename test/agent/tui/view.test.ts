import test from 'ava';
import { barOf, duration, linesOf, size } from '../../../agent/tui/view.ts';

const view = {
  step: 'transfer',
  message: 'p2 ext4',
  done: 500e6,
  total: 1e9,
  rate: 100e6,
  etaSeconds: 5,
  stalledSeconds: 0,
};

test('the screen says step, bytes, rate and time left', (t) => {
  const { body } = linesOf({ host: 'lab-1', server: 'http://fog', headline: 'deploy lab', view });
  t.deepEqual(body, ['deploy lab', 'step transfer, p2 ext4, 500.0 MB of 1.0 GB, 100.0 MB/s, 5 s left']);
});

test('what holds a transfer up is said, with its share', (t) => {
  const busy = { read: 0.1, hash: 0.1, codec: 0.2, network: 0, write: 0.824 };
  const slow = { ...view, busy, bottleneck: 'write' };
  const { body } = linesOf({ host: 'lab-1', server: 'http://fog', headline: 'deploy lab', view: slow });
  t.regex(body[1] ?? '', /100\.0 MB\/s, slowest: write 82 %, 5 s left$/);
});

test('a stall is said after ten seconds', (t) => {
  const stalled = { ...view, rate: 0, etaSeconds: null, stalledSeconds: 61 };
  const { body } = linesOf({ host: 'lab-1', server: 'http://fog', headline: 'deploy lab', view: stalled });
  t.regex(body[1] ?? '', /nothing moved for 1 min 1 s$/);
});

test('the bar is as long as it was told to be, full only at the end', (t) => {
  t.is(barOf(view, 29), '[##########..........]  50 %');
  t.is(barOf({ ...view, done: 1e9 }, 29), '[####################] 100 %');
  t.is(barOf({ ...view, total: null }, 29), '');
  t.is(barOf(null, 29), '');
});

test('sizes and durations read as people say them', (t) => {
  t.is(size(999), '999 B');
  t.is(size(1.5e12), '1.5 TB');
  t.is(duration(59.4), '59 s');
  t.is(duration(3700), '1 h 1 min');
});
