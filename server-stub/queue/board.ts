import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode, ImagingError } from '../../agent/errors.ts';
import type {
  AssignedTask,
  Durable,
  Progress,
  TaskResult,
  TaskSecrets,
  TaskType,
} from '../../agent/protocol/index.ts';
import type { EventHub, ServerEvent } from '../events.ts';
import { createMutex } from '../mutex.ts';
import type { Settings } from '../settings.ts';
import type { Database } from '../store/database.ts';
import {
  findTask,
  lastSeq,
  openTasks,
  type StoredTask,
  saveReports,
  saveTasks,
  type TaskEnd,
} from '../store/tasks.ts';
import {
  cancel,
  expire,
  finish,
  hostReturned,
  type Offer,
  offer,
  renew,
  serverStarted,
  waitingLine,
} from './queue.ts';
import { isFinal, type TaskRow } from './task-row.ts';

export interface NewTask {
  hostId: string;
  type: TaskType;
  params: unknown;
  after: TaskRow['after'];
  /** for the machine that runs the task; never in the row, so never in the database */
  secrets?: TaskSecrets;
}

export type NextAnswer = { kind: 'task'; task: AssignedTask } | Exclude<Offer, { kind: 'task' }>;

/** The open tasks of this server: memory that is written through to the database before anyone is told. */
export interface Board {
  add(task: NewTask): Promise<TaskRow>;
  /** Held open up to the long poll's time while there is nothing new. `toldPlace`: what the machine knows already. */
  next(hostId: string, toldPlace: number | null, signal: AbortSignal): Promise<NextAnswer>;
  /** A sign of life, with what it brought. @throws ImagingError LEASE_LOST */
  report(id: string, attempt: number, progress?: Progress): Promise<{ cancel: boolean }>;
  /** The agent's result, and what is kept with it or not at all. The same one again is no error. @throws ImagingError LEASE_LOST, CONFLICT */
  finish(id: string, result: TaskResult, certificate?: string): Promise<void>;
  cancel(id: string): Promise<TaskRow>;
  hostReturned(hostId: string): Promise<void>;
  hasOpen(hostId: string): boolean;
  /** live state of a task that has not ended */
  live(id: string): StoredTask | undefined;
  open(): StoredTask[];
  /** place in line of a waiting task */
  place(id: string): { place: number; of: number } | null;
  sweep(): Promise<void>;
  close(): Promise<void>;
}

export interface BoardDeps {
  db: Database;
  hub: EventHub;
  /** tell the viewers, and keep the event */
  announce: (event: ServerEvent) => void;
  settings: Settings;
  now?: () => number;
  /** called once for every task that ends, after it is durable */
  onEnded?: (row: TaskRow) => Promise<void>;
}

interface Decision<T> {
  changed: TaskRow[];
  answer: T;
}

interface Live {
  progress: Progress | null;
  durable: Durable | null;
  dirty: boolean;
}

/** Load the open tasks, extend their leases (the outage was ours) and keep time from here on. */
export const openBoard = async (deps: BoardDeps): Promise<Board> => {
  const { db, hub, announce, settings, now = Date.now } = deps;
  const limits = settings.queue;
  const mutex = createMutex();
  const rows = new Map<string, TaskRow>();
  const live = new Map<string, Live>();
  const secrets = new Map<string, TaskSecrets>();
  const wakers = new Set<() => void>();
  let seq = await lastSeq(db);
  let savedAt = now();
  let closed = false;

  /** Decide on the rows as they are, make the decision durable, then let the world see it. */
  const change = <T>(
    decide: (open: readonly TaskRow[]) => Decision<T> | Promise<Decision<T>>,
    result?: TaskEnd,
  ): Promise<T> =>
    mutex(async () => {
      const { changed, answer } = await decide([...rows.values()]);
      const durable = changed.filter((row) => differs(rows.get(row.id), row));
      if (durable.length > 0) {
        await saveReports(db, durable.flatMap(pendingReport));
        await saveTasks(db, durable, result);
      }
      for (const row of changed) {
        if (isFinal(row)) forget(row.id);
        else rows.set(row.id, row);
      }
      for (const row of durable) {
        if (isFinal(row)) await deps.onEnded?.(row);
        announce({ kind: 'task', subject: row.id, data: { state: row.state, hostId: row.hostId } });
      }
      if (durable.length > 0) wake();
      return answer;
    });

  const pendingReport = (row: TaskRow) => {
    const state = live.get(row.id);
    if (!state?.dirty) return [];
    state.dirty = false;
    return [{ id: row.id, progress: state.progress, durable: state.durable }];
  };
  const forget = (id: string): void => {
    rows.delete(id);
    live.delete(id);
    secrets.delete(id);
  };
  const wake = (): void => {
    for (const waker of [...wakers]) waker();
  };
  /** The row of an open task; of an ended one the database's, so that the refusal can say how it ended. */
  const rowOf = async (id: string): Promise<TaskRow> => {
    const row = rows.get(id) ?? (await findTask(db, id))?.row;
    if (!row) throw new ImagingError('NOT_FOUND', `Cannot find task ${id}: no such task`);
    return row;
  };
  /** Change one task; read under the mutex, so that nobody decides on a row that has just changed. */
  const changeOne = (id: string, decide: (row: TaskRow) => TaskRow, result?: TaskEnd): Promise<TaskRow> =>
    change(async () => {
      const row = decide(await rowOf(id));
      return { changed: [row], answer: row };
    }, result);

  const add: Board['add'] = ({ secrets: given, ...task }) => {
    seq += 1;
    const row: TaskRow = {
      ...task,
      id: randomUUID(),
      seq,
      state: 'queued',
      attempt: 0,
      cancel: false,
      leaseUntil: null,
      superseded: false,
      silentSince: null,
      waitingSince: null,
      createdAt: now(),
      startedAt: null,
      endedAt: null,
      reason: null,
    };
    if (given) secrets.set(row.id, given);
    return change(() => ({ changed: [row], answer: row }));
  };

  const next: Board['next'] = async (hostId, toldPlace, signal) => {
    const started = performance.now();
    for (;;) {
      const woken = nextChange(wakers);
      try {
        const answer = await change((open) => {
          const decision = offer(open, hostId, now(), limits);
          return { changed: decision.changed, answer: decision.offer };
        });
        if (answer.kind === 'task') return { kind: 'task', task: assigned(answer.task) };
        const limit = answer.kind === 'nothing' ? settings.nothingGraceMs : settings.longPollMs;
        const left = limit - (performance.now() - started);
        const news = answer.kind === 'waiting' && answer.place !== toldPlace;
        if (news || left <= 0 || signal.aborted || closed) return answer;
        await woken.wait(left, signal);
      } finally {
        woken.end();
      }
    }
  };

  const assigned = (row: TaskRow): AssignedTask => {
    const given = secrets.get(row.id);
    return {
      id: row.id,
      type: row.type,
      params: row.params,
      attempt: row.attempt,
      after: row.after,
      durable: live.get(row.id)?.durable ?? null,
      ...(given ? { secrets: given } : {}),
    } as AssignedTask;
  };

  const report: Board['report'] = async (id, attempt, progress) => {
    const row = await changeOne(id, (task) => renew(task, attempt, now(), limits));
    if (progress) {
      const before = live.get(id);
      live.set(id, { progress, durable: progress.durable ?? before?.durable ?? null, dirty: true });
      hub.publish({ kind: 'progress', subject: id, data: { hostId: row.hostId, progress } });
    }
    return { cancel: row.cancel };
  };

  const finishTask: Board['finish'] = async (id, result, certificate) => {
    try {
      await changeOne(id, (task) => finish(task, result.attempt, result.outcome, now(), limits), {
        ...{ id, result },
        ...(certificate === undefined ? {} : { certificate }),
      });
    } catch (error) {
      // the answer to the first copy was lost: the same result again is confirmed, not refused
      const stored = hasCode(error, 'LEASE_LOST') ? await findTask(db, id) : undefined;
      if (!stored?.result || stored.row.attempt !== result.attempt) throw error;
      if (stored.result.outcome !== result.outcome) {
        throw new ImagingError('CONFLICT', `Cannot change the result of task ${id}: it is final`, {
          details: { task: id, state: stored.row.state },
          cause: error,
        });
      }
    }
  };

  const cancelTask: Board['cancel'] = (id) => changeOne(id, (task) => cancel(task, now()));

  const sweep = async (): Promise<void> => {
    await change((open) => ({ changed: expire(open, now(), limits), answer: undefined }));
    if (now() - savedAt < settings.saveMs) return;
    savedAt = now();
    await mutex(() => saveReports(db, [...rows.values()].flatMap(pendingReport)));
  };

  const stored = (row: TaskRow): StoredTask => {
    const state = live.get(row.id);
    return { row, progress: state?.progress ?? null, durable: state?.durable ?? null, result: null };
  };

  for (const { row, progress, durable } of await openTasks(db)) {
    rows.set(row.id, row);
    live.set(row.id, { progress, durable, dirty: false });
  }
  await change((open) => ({ changed: serverStarted(open, now(), limits), answer: undefined }));

  return {
    add,
    next,
    report,
    finish: finishTask,
    cancel: cancelTask,
    hostReturned: (hostId) =>
      change((open) => ({ changed: hostReturned(open, hostId, now()), answer: undefined })),
    hasOpen: (hostId) => [...rows.values()].some((row) => row.hostId === hostId),
    live: (id) => {
      const row = rows.get(id);
      return row && stored(row);
    },
    open: () => [...rows.values()].map(stored),
    place: (id) => {
      const line = waitingLine([...rows.values()]);
      const index = line.findIndex((row) => row.id === id);
      return index < 0 ? null : { place: index + 1, of: line.length };
    },
    sweep,
    close: async () => {
      closed = true;
      wake();
      await mutex(() => saveReports(db, [...rows.values()].flatMap(pendingReport)));
    },
  };
};

/** A lease alone is not worth a write to the disk: a server that starts extends all of them. */
const differs = (before: TaskRow | undefined, after: TaskRow): boolean =>
  !before ||
  before.state !== after.state ||
  before.attempt !== after.attempt ||
  before.cancel !== after.cancel ||
  before.superseded !== after.superseded ||
  before.silentSince !== after.silentSince;

/** Listens from now on, so that a change between deciding and waiting is not missed. */
const nextChange = (wakers: Set<() => void>) => {
  const controller = new AbortController();
  const waker = (): void => controller.abort();
  wakers.add(waker);
  return {
    wait: async (ms: number, signal: AbortSignal): Promise<void> => {
      // rejects only when one of the two signals fires, which is what is waited for
      await sleep(ms, undefined, { signal: AbortSignal.any([signal, controller.signal]) }).catch(
        () => undefined,
      );
    },
    end: (): void => {
      wakers.delete(waker);
    },
  };
};
