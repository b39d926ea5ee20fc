import { parentPort, workerData } from 'node:worker_threads';
import { isImagingError } from '../errors.ts';
import type { JobAnswer, JobRequest } from './job.ts';
import { createPerformer } from './perform.ts';

// The thread behind pool.ts: one job after the other, no state of its own.
if (!parentPort) throw new Error('agent/image/worker is started by the chunk pool only');
const port = parentPort;
const { perform, takeSeconds } = createPerformer(workerData.shared);

port.on('message', ({ number, kind, job }: JobRequest) => {
  let answer: JobAnswer;
  try {
    const result = perform(kind, job);
    answer = { number, seconds: takeSeconds(), ok: true, result };
  } catch (error) {
    answer = { number, seconds: takeSeconds(), ok: false, error: portable(error) };
  }
  port.postMessage(answer);
});

/** Errors lose their class on the way to another thread. */
const portable = (error: unknown): Extract<JobAnswer, { ok: false }>['error'] => {
  const message = error instanceof Error ? error.message : String(error);
  if (isImagingError(error)) return { code: error.code, message, details: error.details };
  const errno = error instanceof Error && 'code' in error ? String(error.code) : undefined;
  return { code: 'INTERNAL', message, details: {}, ...(errno === undefined ? {} : { errno }) };
};
