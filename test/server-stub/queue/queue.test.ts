import test from 'ava';
import { hasCode } from '../../../agent/errors.ts';
import {
  cancel,
  expire,
  finish,
  hostReturned,
  offer,
  renew,
  serverStarted,
} from '../../../server-stub/queue/queue.ts';
import type { TaskRow } from '../../../server-stub/queue/task-row.ts';
import { defaultSettings } from '../../../server-stub/settings.ts';

const limits = { ...defaultSettings.queue, slots: 2 };
const MINUTE = 60_000;

const row = (seq: number, extra: Partial<TaskRow> = {}): TaskRow => ({
  id: `t${seq}`,
  seq,
  hostId: `h${seq}`,
  type: 'deploy',
  params: {},
  after: 'reboot',
  state: 'queued',
  attempt: 0,
  cancel: false,
  leaseUntil: null,
  superseded: false,
  silentSince: null,
  waitingSince: null,
  createdAt: 0,
  startedAt: null,
  endedAt: null,
  reason: null,
  ...extra,
});
const running = (seq: number, extra: Partial<TaskRow> = {}): TaskRow =>
  row(seq, { state: 'running', attempt: 1, leaseUntil: 1000 + limits.leaseMs, startedAt: 1000, ...extra });

test('a machine without a task gets nothing', (t) => {
  t.deepEqual(offer([row(1)], 'h9', 0, limits), { offer: { kind: 'nothing' }, changed: [] });
});

test('a queued task runs as attempt 1 with a lease', (t) => {
  const { offer: answer, changed } = offer([row(1)], 'h1', 5000, limits);
  t.like(changed[0], {
    state: 'running',
    attempt: 1,
    leaseUntil: 65_000,
    startedAt: 5000,
    waitingSince: null,
  });
  t.is(answer.kind, 'task');
});

test('the same machine that asks again is handed the same attempt', (t) => {
  const { changed } = offer([running(1)], 'h1', 2000, limits);
  t.like(changed[0], { state: 'running', attempt: 1, leaseUntil: 62_000 });
});

test('the older task of a machine comes first, the second waits behind it', (t) => {
  const open = [row(2, { hostId: 'h1' }), row(1)];
  t.is(offer(open, 'h1', 0, limits).changed[0]?.id, 't1');
});

test('without a free slot a machine waits in its place of the line', (t) => {
  const full = [running(1), running(2)];
  const third = offer([...full, row(3), row(4)], 'h3', 10, limits);
  t.deepEqual(third.offer, { kind: 'waiting', place: 1, of: 1 });
  const fourth = offer([...full, ...third.changed, row(4)], 'h4', 20, limits);
  t.deepEqual(fourth.offer, { kind: 'waiting', place: 2, of: 2 });
});

test('a free slot goes to the head of the line, not to who asks first', (t) => {
  const third = row(3, { state: 'waiting', waitingSince: 10, leaseUntil: 99 });
  const fourth = row(4, { state: 'waiting', waitingSince: 20, leaseUntil: 99 });
  const open = [running(1), third, fourth];
  t.deepEqual(offer(open, 'h4', 30, limits).offer, { kind: 'waiting', place: 2, of: 2 });
  t.is(offer(open, 'h3', 30, limits).offer.kind, 'task');
});

test('an inventory needs no slot', (t) => {
  const open = [running(1), running(2), row(3, { type: 'inventory' })];
  t.is(offer(open, 'h3', 0, limits).offer.kind, 'task');
});

test('a report renews the lease; an older attempt, a queued or an ended task has lost it', (t) => {
  t.is(renew(running(1), 1, 9000, limits).leaseUntil, 69_000);
  for (const [task, attempt] of [
    [running(1, { attempt: 2 }), 1],
    [row(1), 0],
    [row(1), 1],
    [row(1, { state: 'lost', attempt: 1 }), 1],
    [row(1, { state: 'waiting', attempt: 1 }), 1],
  ] as const) {
    const error = t.throws(() => renew(task, attempt, 0, limits));
    t.true(hasCode(error, 'LEASE_LOST'));
  }
});

test('a lease that runs out makes the task silent and frees its slot', (t) => {
  t.deepEqual(expire([running(1)], 60_999, limits), []);
  const [silent] = expire([running(1)], 61_000, limits);
  t.like(silent, { state: 'silent', silentSince: 61_000, leaseUntil: null, attempt: 1 });
  t.is(offer([silent as TaskRow, running(2), row(3)], 'h3', 61_000, limits).offer.kind, 'task');
});

test('a silent task that reports again runs on in the same attempt', (t) => {
  const silent = row(1, { state: 'silent', attempt: 1, silentSince: 5 });
  t.like(renew(silent, 1, 9000, limits), { state: 'running', attempt: 1, silentSince: null });
});

test('a machine that boots again during its task gets it as the next attempt, ahead of the line', (t) => {
  const others = [running(2), row(3, { state: 'waiting', waitingSince: 1, leaseUntil: 99_999 })];
  const [silent] = hostReturned([running(1), ...others], 'h1', 2000);
  t.like(silent, { state: 'silent', attempt: 1 });
  t.throws(() => renew(silent as TaskRow, 1, 2500, limits), undefined, 'the boot before is not believed');
  const again = offer([silent as TaskRow, ...others], 'h1', 3000, limits);
  t.like(again.changed[0], { state: 'running', attempt: 2, startedAt: 1000 });
});

test('a returned machine without a slot is first in line and keeps its attempts', (t) => {
  const silent = row(1, { state: 'silent', attempt: 3, silentSince: 5 });
  const full = [running(2), running(3), row(4, { state: 'waiting', waitingSince: 1, leaseUntil: 99_999 })];
  const { offer: answer, changed } = offer([silent, ...full], 'h1', 50, limits);
  t.deepEqual(answer, { kind: 'waiting', place: 1, of: 2 });
  t.like(changed[0], { state: 'waiting', attempt: 3 });
  t.deepEqual(offer([changed[0] as TaskRow, ...full], 'h4', 60, limits).offer, {
    kind: 'waiting',
    place: 2,
    of: 2,
  });
  const [back] = expire(changed, 60 + limits.waitLeaseMs, limits);
  t.like(back, { state: 'silent', attempt: 3 });
});

test('a waiting machine that stops asking leaves the line', (t) => {
  const waiting = row(1, { state: 'waiting', waitingSince: 0, leaseUntil: 100 });
  t.like(expire([waiting], 100, limits)[0], { state: 'queued', waitingSince: null });
});

test('silent for 30 minutes is lost', (t) => {
  const silent = row(1, { state: 'silent', attempt: 1, silentSince: 0 });
  t.deepEqual(expire([silent], 30 * MINUTE - 1, limits), []);
  t.like(expire([silent], 30 * MINUTE, limits)[0], { state: 'lost', endedAt: 30 * MINUTE });
});

test('a server that starts extends every lease by TTL and a minute', (t) => {
  const waiting = row(2, { state: 'waiting', waitingSince: 0, leaseUntil: 0 });
  const silent = row(3, { state: 'silent', attempt: 1, silentSince: 0 });
  const [a, b, c] = serverStarted(
    [running(1, { leaseUntil: 0 }), waiting, silent, row(4)],
    1_000_000,
    limits,
  );
  t.is(a?.leaseUntil, 1_120_000);
  t.is(b?.leaseUntil, 1_120_000);
  t.is(c?.silentSince, 1_000_000);
});

test('cancel ends what no machine works on at once, and asks a running one', (t) => {
  for (const state of ['queued', 'waiting', 'silent'] as const) {
    t.is(cancel(row(1, { state }), 7).state, 'cancelled');
  }
  t.like(cancel(running(1), 7), { state: 'running', cancel: true });
  const error = t.throws(() => cancel(row(1, { state: 'succeeded' }), 7));
  t.true(hasCode(error, 'CONFLICT'));
});

test('a task that was to be cancelled and falls silent is cancelled', (t) => {
  t.is(expire([running(1, { cancel: true })], 61_000, limits)[0]?.state, 'cancelled');
  t.is(hostReturned([running(1, { cancel: true })], 'h1', 5)[0]?.state, 'cancelled');
});

test('a result ends the task of its own attempt only', (t) => {
  t.like(finish(running(1), 1, 'succeeded', 77, limits), {
    state: 'succeeded',
    endedAt: 77,
    leaseUntil: null,
  });
  t.throws(() => finish(running(1, { attempt: 2 }), 1, 'succeeded', 77, limits));
});
