import type { TaskServer } from '../client/task-server.ts';
import type { Config } from '../config.ts';
import type { Log } from '../log.ts';
import type { AssignedTask, Durable, Identity, Progress, TaskResult, TaskType } from '../protocol/index.ts';

/** What a handler gets. It composes disk, filesystem and image; those know nothing of tasks. */
export interface TaskContext {
  server: TaskServer;
  config: Config;
  identity: Identity;
  /** this machine's name on the server */
  hostName: string;
  log: Log;
  /** aborted on cancel; every wait and every tool takes it */
  signal: AbortSignal;
  /** Begin a step. `total` in bytes where known. `uninterruptible` says what a cancel must wait for. */
  step(name: string, options?: { total?: number; message?: string; uninterruptible?: string }): Step;
  /** A thing that was proved, and how. */
  prove(what: string, proof: string): void;
  warn(text: string): void;
  /** Tell the server what lies durably on the target; resolves when it knows, or is away. */
  reportDurable(durable: Durable): Promise<void>;
  /** the plan, as soon as there is one: part of the result whatever happens next */
  showPlan(plan: unknown): void;
  /** the disk chosen, likewise */
  showDisk(disk: NonNullable<TaskResult['disk']>): void;
  /** what the transfer moved, as soon as it has ended, well or not: likewise */
  showStats(stats: NonNullable<TaskResult['stats']>): void;
  /** the version that was published, or whose data is on the disk: likewise */
  showImage(image: NonNullable<TaskResult['image']>): void;
  /** what became of the disks, likewise: a wipe that fails half-way says which half */
  showWipe(report: NonNullable<TaskResult['wipe']>): void;
  /** what the surface test found so far, likewise */
  showSurface(report: NonNullable<TaskResult['surface']>): void;
  /** resolves when somebody at the machine wants it to stop; never, where there is no terminal to ask */
  stopKeyPressed(signal: AbortSignal): Promise<void>;
}

export interface Step {
  add(bytes: number): void;
  say(message: string): void;
  /** Ask this, at every report, which stage holds the step up. */
  watch(busy: () => Pick<Required<Progress>, 'busy' | 'bottleneck'> | null): void;
}

/** What a handler says at its end; what it showed and proved by then is kept by the runner, also when it throws. */
export type HandlerResult = Pick<TaskResult, 'summary'> & Partial<Pick<TaskResult, 'inventory'>>;

export type TaskOf<T extends TaskType> = Extract<AssignedTask, { type: T }>;
export type Handler<T extends TaskType> = (task: TaskOf<T>, context: TaskContext) => Promise<HandlerResult>;
