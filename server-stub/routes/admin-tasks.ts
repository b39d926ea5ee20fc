import { z } from 'zod';
import { ImagingError } from '../../agent/errors.ts';
import { logLineSchema, newTaskSchema, type TaskAnswer, taskAnswerBodySchema } from '../api.ts';
import type { State } from '../state.ts';
import { getHost, hostNames } from '../store/hosts.ts';
import { readLog } from '../store/logs.ts';
import { findTask, listTasks, type StoredTask } from '../store/tasks.ts';
import { taskParams, withUnlock } from './new-task.ts';
import { toTaskAnswer } from './task-answer.ts';
import type { App } from './types.ts';

const idParams = z.object({ id: z.uuid() });
const listQuery = z.object({
  host: z.string().max(64).optional(),
  open: z.stringbool().optional(),
  limit: z.coerce.number().int().min(1).max(1000).default(200),
});
const logQuery = z.object({
  attempt: z.coerce.number().int().min(1).optional(),
  /** only lines with a higher number: to follow a log */
  after: z.coerce.number().int().min(-1).optional(),
  limit: z.coerce.number().int().min(1).max(200_000).default(200_000),
  format: z.enum(['json', 'text']).default('json'),
});

/** /api/tasks */
export const adminTaskRoutes = (app: App, state: State): void => {
  const answer = async (task: StoredTask): Promise<TaskAnswer> =>
    toTaskAnswer(state, task, (await getHost(state.db, task.row.hostId)).name);
  const existing = async (id: string): Promise<StoredTask> => {
    const task = await findTask(state.db, id);
    if (!task) throw new ImagingError('NOT_FOUND', `Cannot find task ${id}: no such task`);
    return task;
  };

  app.get(
    '/api/tasks',
    { schema: { querystring: listQuery, response: { 200: z.array(taskAnswerBodySchema) } } },
    async (request) => {
      const { host, open, limit } = request.query;
      const hostId = host === undefined ? undefined : (await getHost(state.db, host)).id;
      const tasks = await listTasks(state.db, {
        limit,
        ...(hostId ? { hostId } : {}),
        ...(open ? { open } : {}),
      });
      const names = await hostNames(state.db);
      return tasks.map((task) => toTaskAnswer(state, task, names.get(task.row.hostId) ?? ''));
    },
  );

  app.post(
    '/api/tasks',
    { schema: { body: newTaskSchema, response: { 201: taskAnswerBodySchema } } },
    async (request, reply) => {
      const { host: key, type, params, after, secrets, confirmHosts = 1 } = request.body;
      if (confirmHosts !== 1) {
        throw new ImagingError(
          'BAD_REQUEST',
          `Cannot add the task: it is for 1 host, not for ${confirmHosts}`,
        );
      }
      const host = await getHost(state.db, key);
      const complete = await taskParams(state, host, type, withUnlock(type, params, secrets));
      const row = await state.board.add({
        ...{ hostId: host.id, type, params: complete, after },
        ...(secrets ? { secrets } : {}),
      });
      request.log.info({ task: row.id, type, host: host.name }, 'task added');
      return reply.code(201).send(await answer(await existing(row.id)));
    },
  );

  app.get(
    '/api/tasks/:id',
    { schema: { params: idParams, response: { 200: taskAnswerBodySchema } } },
    async (request) => answer(await existing(request.params.id)),
  );

  app.post(
    '/api/tasks/:id/cancel',
    { schema: { params: idParams, response: { 200: taskAnswerBodySchema } } },
    async (request) => {
      const row = await state.board.cancel(request.params.id);
      request.log.info({ task: row.id, state: row.state }, 'cancel asked for');
      return answer(await existing(row.id));
    },
  );

  app.get(
    '/api/tasks/:id/result',
    { schema: { params: idParams, response: { 200: z.unknown() } } },
    async (request) => {
      const { row, result } = await existing(request.params.id);
      if (!result) {
        throw new ImagingError(
          'NOT_FOUND',
          `Cannot show a result: task ${row.id} is ${row.state} without one`,
        );
      }
      return result;
    },
  );

  app.get(
    '/api/tasks/:id/log',
    {
      schema: {
        params: idParams,
        querystring: logQuery,
        response: { 200: z.array(logLineSchema).or(z.string()) },
      },
    },
    async (request, reply) => {
      const { row } = await existing(request.params.id);
      const lines = await readLog(state.db, row.id, request.query);
      if (request.query.format === 'json') return lines;
      reply.type('text/plain; charset=utf-8');
      return lines.map(({ line }) => `${line}\n`).join('');
    },
  );
};
