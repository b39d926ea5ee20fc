import { finalStates, isWipe, type TaskState, type TaskType } from '../../agent/protocol/index.ts';

/** What the queue knows of a task. Times in milliseconds since 1970. Rows are never changed in place. */
export interface TaskRow {
  readonly id: string;
  /** order of creation: the older task of a host runs first */
  readonly seq: number;
  readonly hostId: string;
  readonly type: TaskType;
  readonly params: unknown;
  readonly after: 'reboot' | 'poweroff' | 'stay';
  readonly state: TaskState;
  /** 0 until it first runs; every report carries it */
  readonly attempt: number;
  /** an administrator wants it to end; the agent learns it from every answer */
  readonly cancel: boolean;
  /** running and waiting: when the machine must have been heard of again */
  readonly leaseUntil: number | null;
  /** its machine has booted anew or asked anew: nothing of the current attempt is believed any more */
  readonly superseded: boolean;
  readonly silentSince: number | null;
  readonly waitingSince: number | null;
  readonly createdAt: number;
  readonly startedAt: number | null;
  readonly endedAt: number | null;
  /** why it ended, where no result of the agent says so */
  readonly reason: string | null;
}

export interface QueueLimits {
  /** imaging tasks that run at a time, over all machines */
  slots: number;
  /** a running task keeps its slot this long without a sign of life */
  leaseMs: number;
  /** a waiting machine keeps its place this long between two polls */
  waitLeaseMs: number;
  /** silent for this long is lost */
  lostMs: number;
  /** the same for a wipe: a drive that erases itself goes on through a restart, for hours */
  wipeLostMs: number;
  /** added to every lease when the server starts: the outage was ours */
  startGraceMs: number;
}

const imagingTypes: ReadonlySet<TaskType> = new Set(['capture', 'deploy']);

/** Tasks that move an image's bytes share the slots; others run at once. */
export const needsSlot = (task: TaskRow): boolean => imagingTypes.has(task.type);

/** How long its machine may be silent. */
export const lostAfter = (task: TaskRow, limits: QueueLimits): number =>
  isWipe(task.type) ? limits.wipeLostMs : limits.lostMs;

export const isFinal = (task: TaskRow): boolean => finalStates.includes(task.state);
