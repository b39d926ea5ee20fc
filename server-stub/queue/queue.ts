import { ImagingError } from '../../agent/errors.ts';
import { isWipe, type TaskState } from '../../agent/protocol/index.ts';
import { isFinal, lostAfter, needsSlot, type QueueLimits, type TaskRow } from './task-row.ts';

/** The queue's answer to a machine that asks what to do. */
export type Offer =
  | { kind: 'task'; task: TaskRow }
  | { kind: 'waiting'; place: number; of: number }
  | { kind: 'nothing' };

/**
 * What the machine `hostId` is to do now. `open` holds every task that has not ended. Its oldest task
 * comes first; a task that it already runs is handed out again (the answer may have been lost).
 * Slots go to the line in order; a machine that fell silent and returned stands ahead of it.
 */
export const offer = (
  open: readonly TaskRow[],
  hostId: string,
  now: number,
  limits: QueueLimits,
): { offer: Offer; changed: TaskRow[] } => {
  const task = oldest(open.filter((row) => row.hostId === hostId && !isFinal(row)));
  if (!task) return { offer: { kind: 'nothing' }, changed: [] };
  if (task.state === 'running') {
    const renewed = { ...task, leaseUntil: now + limits.leaseMs };
    return { offer: { kind: 'task', task: renewed }, changed: [renewed] };
  }
  const asking: TaskRow = {
    ...task,
    state: 'waiting',
    superseded: task.attempt > 0,
    silentSince: null,
    waitingSince: task.waitingSince ?? now,
    leaseUntil: now + limits.waitLeaseMs,
  };
  if (needsSlot(task)) {
    const line = open.filter((row) => row.state === 'waiting' && needsSlot(row) && row.id !== task.id);
    const ahead = line.filter((row) => inLine(row, asking) < 0).length;
    if (ahead >= freeSlots(open, limits)) {
      return { offer: { kind: 'waiting', place: ahead + 1, of: line.length + 1 }, changed: [asking] };
    }
  }
  const started: TaskRow = {
    ...asking,
    state: 'running',
    superseded: false,
    waitingSince: null,
    attempt: task.attempt + 1,
    leaseUntil: now + limits.leaseMs,
    startedAt: task.startedAt ?? now,
  };
  return { offer: { kind: 'task', task: started }, changed: [started] };
};

/**
 * A sign of life from attempt `attempt`: renews the lease. A task that had fallen silent runs on in the
 * same attempt, since only a new check-in of its machine could have started another; for a moment there
 * may then be one task more than slots, which is better than stopping a machine in mid-write.
 *
 * @throws ImagingError LEASE_LOST (the task has ended, was never started, or is another attempt's)
 */
export const renew = (task: TaskRow, attempt: number, now: number, limits: QueueLimits): TaskRow => {
  const held = (task.state === 'running' || task.state === 'silent') && !task.superseded;
  if (!held || attempt !== task.attempt) {
    throw new ImagingError('LEASE_LOST', `Cannot go on with task ${task.id}: ${whyLost(task, attempt)}`, {
      details: { task: task.id, state: task.state, attempt: task.attempt, reported: attempt },
    });
  }
  return { ...task, state: 'running', silentSince: null, leaseUntil: now + limits.leaseMs };
};

/** The agent's own end of a task. @throws ImagingError LEASE_LOST as `renew` */
export const finish = (
  task: TaskRow,
  attempt: number,
  outcome: 'succeeded' | 'failed' | 'cancelled',
  now: number,
  limits: QueueLimits,
): TaskRow => ended(renew(task, attempt, now, limits), outcome, null, now);

/** Leases that ran out: running -> silent (or cancelled, if that was asked for), waiting -> queued, silent -> lost. */
export const expire = (open: readonly TaskRow[], now: number, limits: QueueLimits): TaskRow[] =>
  open.flatMap((task) => {
    const over = task.leaseUntil !== null && task.leaseUntil <= now;
    if (task.state === 'running' && over) return [gone(task, now, 'the machine fell silent')];
    if (task.state === 'waiting' && over) return [leftLine(task, now)];
    if (task.state === 'silent' && now - (task.silentSince ?? now) >= lostAfter(task, limits)) {
      return [ended(task, 'lost', whyGivenUp(task, limits), now)];
    }
    return [];
  });

/** A machine has booted anew: whatever it was doing, it is not doing it any more. */
export const hostReturned = (open: readonly TaskRow[], hostId: string, now: number): TaskRow[] =>
  open.flatMap((task) =>
    task.hostId === hostId && (task.state === 'running' || task.state === 'silent')
      ? [{ ...gone(task, now, 'the machine was restarted'), superseded: true }]
      : [],
  );

/** The server has started: nobody could report while it was down. */
export const serverStarted = (open: readonly TaskRow[], now: number, limits: QueueLimits): TaskRow[] =>
  open.flatMap((task): TaskRow[] => {
    if (task.state === 'running' || task.state === 'waiting') {
      return [{ ...task, leaseUntil: now + limits.leaseMs + limits.startGraceMs }];
    }
    return task.state === 'silent' ? [{ ...task, silentSince: now }] : [];
  });

/**
 * Cancel: at once where no machine is at work, else by the flag that the agent sees in its next answer.
 * @throws ImagingError CONFLICT (the task has ended)
 */
export const cancel = (task: TaskRow, now: number): TaskRow => {
  if (isFinal(task)) {
    throw new ImagingError('CONFLICT', `Cannot cancel task ${task.id}: it has ended (${task.state})`, {
      details: { task: task.id, state: task.state },
    });
  }
  if (task.state === 'running') return { ...task, cancel: true };
  return ended({ ...task, cancel: true }, 'cancelled', `cancelled by an administrator${notWiped(task)}`, now);
};

export const freeSlots = (open: readonly TaskRow[], limits: QueueLimits): number =>
  limits.slots - open.filter((task) => task.state === 'running' && needsSlot(task)).length;

/** The waiting tasks in the order in which they get slots. */
export const waitingLine = (open: readonly TaskRow[]): TaskRow[] =>
  open.filter((task) => task.state === 'waiting' && needsSlot(task)).sort(inLine);

const oldest = (tasks: readonly TaskRow[]): TaskRow | undefined =>
  tasks.reduce<TaskRow | undefined>((best, task) => (best && best.seq < task.seq ? best : task), undefined);

/** Returned machines first, then by arrival at the line. */
const inLine = (a: TaskRow, b: TaskRow): number =>
  Number(b.attempt > 0) - Number(a.attempt > 0) ||
  (a.waitingSince ?? 0) - (b.waitingSince ?? 0) ||
  a.seq - b.seq;

const gone = (task: TaskRow, now: number, reason: string): TaskRow =>
  task.cancel
    ? ended(task, 'cancelled', `cancelled by an administrator; ${reason}${notWiped(task)}`, now)
    : { ...task, state: 'silent', silentSince: now, leaseUntil: null };

const leftLine = (task: TaskRow, now: number): TaskRow =>
  task.attempt > 0
    ? { ...task, state: 'silent', silentSince: now, waitingSince: null, leaseUntil: null }
    : { ...task, state: 'queued', waitingSince: null, leaseUntil: null };

const ended = (task: TaskRow, state: TaskState, reason: string | null, now: number): TaskRow => ({
  ...task,
  state,
  reason,
  leaseUntil: null,
  silentSince: null,
  waitingSince: null,
  endedAt: now,
});

const whyGivenUp = (task: TaskRow, limits: QueueLimits): string => {
  const minutes = Math.round(lostAfter(task, limits) / 60_000);
  const time = minutes < 120 ? `${minutes} minutes` : `${Math.round(minutes / 60)} hours`;
  return `the machine did not come back in ${time}${notWiped(task)}`;
};

/** What a wipe is that began and never reported its end. */
const notWiped = ({ type, attempt }: TaskRow): string => (isWipe(type) && attempt > 0 ? ': not wiped' : '');

const whyLost = (task: TaskRow, attempt: number): string => {
  if (isFinal(task)) return `it has ended (${task.state})`;
  if (attempt !== task.attempt) return `attempt ${task.attempt} has taken over from attempt ${attempt}`;
  return task.superseded ? 'its machine has started anew' : `it is ${task.state}`;
};
