import type { TaskServer } from './task-server.ts';

export interface LogUploader {
  /** One record. Never waits; the oldest are dropped, and counted, when the server is away for long. */
  write(line: string): void;
  /** From now on the lines belong to this task; earlier ones of this boot go along. */
  attach(taskId: string, attempt: number): void;
  /** Send what there is. Resolves when the server has it, or throws. */
  flush(signal: AbortSignal): Promise<void>;
}

const KEPT_LINES = 20_000;
const LINES_PER_REQUEST = 1000;
const LINE_LIMIT = 8000;

/** Collects log lines and sends them to the server, each once: the server knows lines by number. */
export const createLogUploader = (server: Pick<TaskServer, 'log'>): LogUploader => {
  let kept: string[] = [];
  /** number of kept[0] within the task's log */
  let first = 0;
  let task: { id: string; attempt: number } | undefined;
  let sending: Promise<void> = Promise.resolve();

  const send = async (signal: AbortSignal): Promise<void> => {
    while (task && kept.length > 0) {
      const batch = kept.slice(0, LINES_PER_REQUEST);
      const from = first;
      await server.log(task.id, { attempt: task.attempt, from, lines: batch }, signal);
      const sent = from + batch.length - first;
      kept = kept.slice(Math.max(0, sent));
      first += Math.max(0, sent);
    }
  };

  return {
    write: (line) => {
      kept.push(line.slice(0, LINE_LIMIT));
      if (kept.length > KEPT_LINES) {
        kept.shift();
        first += 1;
      }
    },
    attach: (id, attempt) => {
      task = { id, attempt };
      first = 0;
    },
    flush: (signal) => {
      sending = sending.catch(() => undefined).then(() => send(signal));
      return sending;
    },
  };
};
