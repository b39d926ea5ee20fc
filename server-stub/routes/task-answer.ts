import type { TaskAnswer } from '../api.ts';
import type { State } from '../state.ts';
import type { StoredTask } from '../store/tasks.ts';

/** A task as the admin API shows it: the live state where it has not ended. */
export const toTaskAnswer = (state: State, task: StoredTask, hostName: string): TaskAnswer => {
  const { row, progress, result } = { ...task, ...state.board.live(task.row.id) };
  return {
    id: row.id,
    host: { id: row.hostId, name: hostName },
    type: row.type,
    params: row.params,
    after: row.after,
    state: row.state,
    attempt: row.attempt,
    cancel: row.cancel,
    place: state.board.place(row.id),
    progress,
    createdAt: iso(row.createdAt),
    startedAt: row.startedAt === null ? null : iso(row.startedAt),
    endedAt: row.endedAt === null ? null : iso(row.endedAt),
    silentSince: row.silentSince === null ? null : iso(row.silentSince),
    reason: row.reason,
    result: result ?? null,
  };
};

const iso = (ms: number): string => new Date(ms).toISOString();
