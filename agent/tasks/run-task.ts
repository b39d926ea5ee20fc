import type { LogUploader } from '../client/log-uploader.ts';
import { startReporter } from '../client/reporter.ts';
import type { TaskServer } from '../client/task-server.ts';
import type { Config } from '../config.ts';
import { takeDownLeftovers } from '../disk/take-down.ts';
import { hasCode, type ImagingError, toImagingError } from '../errors.ts';
import type { Log } from '../log.ts';
import { createMeter, type Meter } from '../progress/meter.ts';
import type { AssignedTask, Evidence, Identity, Progress, TaskResult } from '../protocol/index.ts';
import { toWireError } from '../protocol/index.ts';
import type { HandlerResult, Step, TaskContext } from './context.ts';
import { handle } from './registry.ts';

export type TaskView = Omit<Progress, 'attempt' | 'durable'>;

export interface RunTaskOptions {
  task: AssignedTask;
  server: TaskServer;
  config: Config;
  identity: Identity;
  hostName: string;
  log: Log;
  uploader: LogUploader;
  /** told at every change of step and every second */
  show: (view: TaskView) => void;
  /** the machine or its technician stops the agent */
  signal: AbortSignal;
  /** somebody at the machine wants it to stop; by default nobody can */
  stopKeyPressed?: TaskContext['stopKeyPressed'];
  /** for tests; the registry's by default */
  handler?: (task: AssignedTask, context: TaskContext) => Promise<HandlerResult>;
}

/**
 * Carry out one task to its result and have the server acknowledge it. A handler that throws makes the
 * task fail with the error's code; only a handler that returns, with evidence, makes it succeed.
 *
 * @throws ImagingError LEASE_LOST when the task went to another attempt: then nothing is reported;
 *   SERVER_UNREACHABLE when the result could not be delivered in 30 minutes
 */
export const runTask = async (options: RunTaskOptions): Promise<TaskResult> => {
  const { task, server, uploader, log, handler = handle } = options;
  const cancelling = new AbortController();
  const signal = AbortSignal.any([options.signal, cancelling.signal]);
  const view = createView(options.show);
  const evidence: Evidence[] = [];
  const warnings: string[] = [];
  let plan: unknown;
  let disk: TaskResult['disk'] = null;
  let stats: TaskResult['stats'] = null;
  let image: TaskResult['image'] = null;
  let wipe: TaskResult['wipe'];
  let surface: TaskResult['surface'];

  uploader.attach(task.id, task.attempt);
  log.info(
    { task: task.id, type: task.type, attempt: task.attempt, params: task.params },
    `task ${task.type} begins`,
  );
  const reporter = startReporter({
    server,
    taskId: task.id,
    attempt: task.attempt,
    reading: view.reading,
    abort: (reason) => cancelling.abort(reason),
    log,
    afterPost: () => {
      options.show(view.reading());
      // an outage is the flush's to wait out; the next post tries again
      uploader.flush(options.signal).catch(() => undefined);
    },
  });

  const context: TaskContext = {
    server,
    config: options.config,
    identity: options.identity,
    hostName: options.hostName,
    log,
    signal,
    step: (name, stepOptions) => {
      log.info({ step: name }, `step ${name}${stepOptions?.message ? `: ${stepOptions.message}` : ''}`);
      return view.step(name, stepOptions);
    },
    prove: (what, proof) => {
      log.info({ proof }, `proved: ${what}`);
      evidence.push({ what, proof: proof.slice(0, 1000) });
    },
    warn: (text) => {
      log.warn(text);
      warnings.push(text.slice(0, 1000));
    },
    reportDurable: (durable) => {
      reporter.setDurable(durable);
      return reporter.now();
    },
    showPlan: (value) => {
      plan = value;
    },
    showDisk: (value) => {
      disk = value;
    },
    showStats: (value) => {
      stats = value;
    },
    showImage: (value) => {
      image = value;
    },
    showWipe: (value) => {
      wipe = value;
    },
    showSurface: (value) => {
      surface = value;
    },
    stopKeyPressed: options.stopKeyPressed ?? never,
  };

  const work = async (): Promise<HandlerResult> => {
    await takeDownLeftovers(log);
    signal.throwIfAborted();
    return await handler(task, context);
  };
  const ended = await settle(work, cancelling.signal);
  await reporter.stop();
  if (ended.error && hasCode(ended.error, 'LEASE_LOST')) throw ended.error;

  const result: TaskResult = {
    attempt: task.attempt,
    outcome: ended.error ? (hasCode(ended.error, 'TASK_CANCELLED') ? 'cancelled' : 'failed') : 'succeeded',
    error: ended.error ? toWireError(ended.error) : null,
    // a result that is too long is refused, and with it everything in it
    evidence: evidence.slice(0, 100),
    warnings: warnings.slice(0, 100),
    summary: (ended.result?.summary ?? ended.error?.message ?? '').slice(0, 4000),
    stats,
    image,
    disk,
    ...(plan === undefined ? {} : { plan }),
    inventory: ended.result?.inventory ?? null,
    ...(wipe ? { wipe } : {}),
    ...(surface ? { surface } : {}),
    endedAt: new Date().toISOString(),
  };
  if (ended.error)
    log.error({ err: ended.error, details: ended.error.details }, `task ${task.type} ${result.outcome}`);
  else log.info(`task ${task.type} succeeded`);
  view.step('report');
  await uploader
    .flush(options.signal)
    .catch((error: unknown) => log.warn({ err: error }, 'Cannot upload the log'));
  await server.result(task.id, result, options.signal);
  return result;
};

const never = (): Promise<void> => new Promise(() => undefined);

/** The handler's end, whichever: what the server ordered goes before the error that the order caused. */
const settle = async (
  work: () => Promise<HandlerResult>,
  ordered: AbortSignal,
): Promise<{ result?: HandlerResult; error?: ImagingError }> => {
  try {
    return { result: await work() };
  } catch (error) {
    return { error: toImagingError(ordered.aborted ? ordered.reason : error) };
  }
};

const createView = (show: (view: TaskView) => void) => {
  let meter: Meter = createMeter(null);
  let name = 'begin';
  let message = '';
  let uninterruptible: string | undefined;
  let watched: Parameters<Step['watch']>[0] | undefined;
  const reading = (): TaskView => ({
    step: name,
    message,
    ...meter.read(),
    ...watched?.(),
    ...(uninterruptible === undefined ? {} : { uninterruptible }),
  });
  return {
    reading,
    step: (next: string, options: { total?: number; message?: string; uninterruptible?: string } = {}) => {
      meter = createMeter(options.total ?? null);
      name = next;
      message = options.message ?? '';
      uninterruptible = options.uninterruptible;
      watched = undefined;
      show(reading());
      const own = meter;
      return {
        add: own.add,
        say: (text: string) => {
          message = text.slice(0, 400);
        },
        watch: (busy: Parameters<Step['watch']>[0]) => {
          watched = busy;
        },
      };
    },
  };
};
