import { setTimeout as sleep } from 'node:timers/promises';
import { ImagingError } from '../../../agent/errors.ts';
import {
  finalStates,
  fromWireError,
  type TransferStats,
  taskResultSchema,
} from '../../../agent/protocol/index.ts';
import { size } from '../../../agent/tui/view.ts';
import type { HostAnswer, TaskAnswer } from '../../../server-stub/api.ts';
import { createApiClient } from '../../../server-stub/cli/api-client.ts';
import type { ScenarioOptions } from './scenario.ts';

export interface EndedTask {
  id: string;
  /** seconds from the agent's start of the task to its result */
  seconds: number;
  stats: TransferStats;
  evidence: { what: string; proof: string }[];
  warnings: string[];
}

/** Hosts and tasks through the admin API, as an administrator's script would. */
export const createTasks = ({ server, token, data, signal }: ScenarioOptions) => {
  const api = createApiClient({ server, token, data });
  const get = (id: string): Promise<TaskAnswer> => api.get<TaskAnswer>(`/api/tasks/${id}`);

  return {
    addHost: (name: string, mac: string): Promise<HostAnswer> =>
      api.post<HostAnswer>('/api/hosts', { name, macs: [mac] }),
    add: async (host: string, type: string, params: object): Promise<string> =>
      (await api.post<TaskAnswer>('/api/tasks', { host, type, params, after: 'poweroff' })).id,

    /** Say what the task does, until it has ended. */
    follow: async (id: string, say: (line: string) => void): Promise<void> => {
      let last = '';
      for (;;) {
        signal.throwIfAborted();
        const { state, progress } = await get(id);
        if (finalStates.includes(state)) return;
        const line = progress ? `  ${progress.step} ${progress.message}`.trimEnd() : `  ${state}`;
        if (line !== last) say(progress?.total ? `${line}, ${size(progress.total)}` : line);
        last = line;
        await sleep(500, undefined, { signal });
      }
    },

    /** @throws ImagingError the task's own error, or INTERNAL when it has none to show */
    ended: async (id: string): Promise<EndedTask> => {
      const task = await get(id);
      const parsed = taskResultSchema.safeParse(task.result);
      if (!parsed.success)
        throw new ImagingError('INTERNAL', `Cannot finish: task ${task.type} ended ${task.state}`);
      const result = parsed.data;
      if (result.error) throw fromWireError(result.error);
      if (task.state !== 'succeeded' || !result.stats) {
        throw new ImagingError('INTERNAL', `Cannot finish: task ${task.type} ended ${task.state}`);
      }
      const seconds = (Date.parse(task.endedAt ?? '') - Date.parse(task.startedAt ?? '')) / 1000;
      return { id, seconds, stats: result.stats, evidence: result.evidence, warnings: result.warnings };
    },
  };
};
