import { setTimeout as sleep } from 'node:timers/promises';
import { createLogUploader, type LogUploader } from './client/log-uploader.ts';
import { openSession } from './client/session.ts';
import { createTaskServer, type TaskServer } from './client/task-server.ts';
import type { Config } from './config.ts';
import { hasCode, toImagingError } from './errors.ts';
import { createLog, type Log } from './log.ts';
import { readIdentity } from './machine/identity.ts';
import { power } from './machine/power.ts';
import { type ToolEnd, toolEnds } from './process/run.ts';
import type { AssignedTask, Identity, TaskResult } from './protocol/index.ts';
import { runTask, type TaskView } from './tasks/run-task.ts';

export interface AgentOptions {
  config: Config;
  /** a line of the log, for people */
  toConsole: (line: string) => void;
  /** what the machine is doing, for a status screen */
  show?: (status: AgentStatus) => void;
  /** somebody at the machine wants it to stop */
  stopKeyPressed?: (signal: AbortSignal) => Promise<void>;
  signal: AbortSignal;
  /** where this boot's session is kept, so that a restarted agent goes on with it */
  sessionPath?: string;
}

export interface AgentStatus {
  host: string;
  server: string;
  headline: string;
  view: TaskView | null;
}

/** Seconds that a person has to read why before the machine restarts. */
const READING_SECONDS = 20;

/**
 * The agent's life: check in, ask what to do, do it, report, and restart or power off as told.
 * Returns when the machine is about to restart, or when the signal ends it.
 */
export const runAgent = async (options: AgentOptions): Promise<void> => {
  const { config, signal, show = () => undefined } = options;
  let log: Log = createLog({ toConsole: options.toConsole });
  const server = createTaskServer({
    ...config,
    onWait: (error, seconds) => log.warn({ err: error }, `waiting ${seconds.toFixed(1)} s for the server`),
  });
  const uploader = createLogUploader(server);
  log = createLog({ toConsole: options.toConsole, toServer: uploader.write });
  const identity = await readIdentity(config.bootMac === undefined ? {} : { bootMac: config.bootMac });
  const status: AgentStatus = {
    host: identity.macs[0] ?? '',
    server: config.server,
    headline: 'checking in',
    view: null,
  };
  const say = (headline: string, view: TaskView | null = null): void => {
    Object.assign(status, { headline, view });
    show({ ...status });
  };
  say('checking in');
  const onTool = (end: unknown): void => log.debug(end as ToolEnd, 'tool');
  toolEnds.subscribe(onTool);

  try {
    const { sessionPath } = options;
    status.host = await openSession({
      ...{ config, server, identity, log, signal },
      ...(sessionPath === undefined ? {} : { sessionPath }),
    });
    const { stopKeyPressed } = options;
    await work({
      ...{ config, server, identity, hostName: status.host, log, uploader, say, signal },
      ...(stopKeyPressed ? { stopKeyPressed } : {}),
    });
  } catch (thrown) {
    if (signal.aborted) return;
    const error = toImagingError(thrown);
    log.error({ err: error, details: error.details }, 'the agent cannot go on');
    say(`Cannot go on: ${error.message}`);
    if (config.stay) throw error;
    // a new boot brings a new token; without a task it goes on to the machine's own disk
    await sleep(READING_SECONDS * 1000, undefined, { signal });
    await power('reboot');
  } finally {
    toolEnds.unsubscribe(onTool);
    server.close();
  }
};

interface WorkOptions {
  config: Config;
  server: TaskServer;
  identity: Identity;
  hostName: string;
  log: Log;
  uploader: LogUploader;
  say: (headline: string, view?: TaskView | null) => void;
  stopKeyPressed?: (signal: AbortSignal) => Promise<void>;
  signal: AbortSignal;
}

const work = async (options: WorkOptions): Promise<void> => {
  const { config, server, log, say, signal } = options;
  while (!signal.aborted) {
    const next = await server.next(signal);
    if (next.kind === 'waiting') {
      say(`waiting: place ${next.place} of ${next.of}`);
    } else if (next.kind === 'nothing') {
      log.info('nothing to do');
      say('nothing to do: restarting to the own disk');
      if (config.stay) return;
      return power('reboot');
    } else {
      const { task } = next;
      const result = await attempt(() =>
        runTask({ ...options, task, show: (view) => say(titleOf(task), view) }),
      );
      if (result === 'lease lost') {
        log.warn('the task went to another attempt of this machine');
        continue;
      }
      say(`${titleOf(task)} ${result.outcome}: ${result.summary.split('\n')[0] ?? ''}`);
      if (task.after === 'stay' || config.stay) continue;
      if (result.outcome !== 'succeeded') await sleep(READING_SECONDS * 1000, undefined, { signal });
      return power(task.after);
    }
  }
};

const attempt = async (run: () => Promise<TaskResult>): Promise<TaskResult | 'lease lost'> => {
  try {
    return await run();
  } catch (error) {
    if (hasCode(error, 'LEASE_LOST')) return 'lease lost';
    throw error;
  }
};

const titleOf = (task: AssignedTask): string =>
  'image' in task.params ? `${task.type} ${task.params.image}` : task.type;
