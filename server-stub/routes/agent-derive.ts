import { z } from 'zod';
import { ImagingError } from '../../agent/errors.ts';
import { deriveAnswerSchema, deriveRequestSchema, type TaskParams } from '../../agent/protocol/index.ts';
import type { ShrinkJob } from '../images/shrink/jobs.ts';
import type { State } from '../state.ts';
import { ownTask } from './agent-scope.ts';
import type { App } from './types.ts';

/** A deploy asks for its image in a size that fits its disk. Registered where a session is required. */
export const agentDeriveRoute = (app: App, state: State): void => {
  app.post(
    '/agent/v1/tasks/:id/derive',
    {
      schema: {
        params: z.object({ id: z.uuid() }),
        body: deriveRequestSchema,
        response: { 200: deriveAnswerSchema },
      },
    },
    async (request) => {
      const { attempt, disks, make, job: id } = request.body;
      const task = await ownTask(state, request, request.params.id);
      const { cancel } = await state.board.report(task.id, attempt);
      if (task.type !== 'deploy') {
        throw new ImagingError('BAD_REQUEST', `Cannot make a smaller version: task ${task.id} is no deploy`);
      }
      const { image, version } = task.params as TaskParams<'deploy'>;
      const targets = Object.fromEntries(disks.map(({ name, size }) => [name, size]));
      if (!make) {
        const found = await state.shrinks.look(image, version, targets);
        return found === undefined
          ? { cancel, state: 'possible' as const }
          : { cancel, state: 'ready' as const, version: found };
      }
      // a server that was restarted knows the job no more: it is begun again
      const job = ownJob(state, id, task.id) ?? (await state.shrinks.ask(image, version, targets, task.id));
      return { cancel, ...answerOf(job) };
    },
  );
};

const ownJob = (state: State, id: string | undefined, taskId: string): ShrinkJob | undefined => {
  const job = id === undefined ? undefined : state.shrinks.job(id);
  return job?.tasks.has(taskId) ? job : undefined;
};

const answerOf = (job: ShrinkJob) => {
  if (job.error) throw job.error;
  if (job.result !== null) return { state: 'ready' as const, version: job.result };
  const { id, done, total } = job;
  return { state: 'making' as const, job: id, message: job.message.slice(0, 400), done, total };
};
