import { z } from 'zod';
import { ImagingError } from '../../agent/errors.ts';
import {
  heartbeatSchema,
  inventoryReportSchema,
  isWipe,
  logSchema,
  nextAnswerSchema,
  progressSchema,
  type TaskParams,
  type TaskResult,
  taskAnswerSchema,
  taskResultSchema,
  type WipeType,
} from '../../agent/protocol/index.ts';
import { issueCertificate } from '../certificate/issue.ts';
import { collectChunks } from '../images/remove.ts';
import type { TaskRow } from '../queue/task-row.ts';
import type { State } from '../state.ts';
import { getHost, saveInventory } from '../store/hosts.ts';
import { appendLog } from '../store/logs.ts';
import { ownTask } from './agent-scope.ts';
import { checkReportedChunks } from './reported-chunks.ts';
import { requireProof } from './result-proof.ts';
import type { App } from './types.ts';

const MIB = 1024 * 1024;
const idParams = z.object({ id: z.uuid() });

/** What a machine asks and tells about its task. Registered where a session is required. */
export const agentTaskRoutes = (app: App, state: State): void => {
  /** place in line that each machine knows already, so that a poll is answered when it changes */
  const told = new Map<string, number>();

  const tidyUp = async (result: TaskResult): Promise<void> => {
    await checkReportedChunks(state, result);
    if (result.error?.code === 'STORE_FULL') await collectChunks(state);
  };

  /** Also of a wipe that failed: then it says what is not erased. */
  const certificateFor = async (task: TaskRow, result: TaskResult): Promise<string | undefined> => {
    if (!result.wipe || !isWipe(task.type)) return undefined;
    if ((task.params as TaskParams<WipeType>).dryRun) return undefined;
    const host = await getHost(state.db, task.hostId);
    return issueCertificate(state.key, task, host, result, new Date(state.now()));
  };

  app.post('/agent/v1/next', { schema: { response: { 200: nextAnswerSchema } } }, async (request, reply) => {
    const gone = new AbortController();
    reply.raw.once('close', () => gone.abort());
    const answer = await state.board.next(request.hostId, told.get(request.hostId) ?? null, gone.signal);
    if (answer.kind === 'waiting') told.set(request.hostId, answer.place);
    else told.delete(request.hostId);
    return answer;
  });

  app.post(
    '/agent/v1/tasks/:id/heartbeat',
    { schema: { params: idParams, body: heartbeatSchema, response: { 200: taskAnswerSchema } } },
    async (request) => {
      const task = await ownTask(state, request, request.params.id);
      return state.board.report(task.id, request.body.attempt);
    },
  );

  app.post(
    '/agent/v1/tasks/:id/progress',
    {
      schema: { params: idParams, body: progressSchema, response: { 200: taskAnswerSchema } },
      bodyLimit: 16 * MIB,
    },
    async (request) => {
      const task = await ownTask(state, request, request.params.id);
      return state.board.report(task.id, request.body.attempt, request.body);
    },
  );

  // a log may come after the end of its task, and from an attempt that lost its lease: evidence is kept
  app.post(
    '/agent/v1/tasks/:id/log',
    {
      schema: { params: idParams, body: logSchema, response: { 200: taskAnswerSchema } },
      bodyLimit: 40 * MIB,
    },
    async (request) => {
      const task = await ownTask(state, request, request.params.id);
      const { attempt, from, lines } = request.body;
      if (attempt > task.attempt) {
        throw new ImagingError(
          'BAD_REQUEST',
          `Cannot keep the log: task ${task.id} has no attempt ${attempt}`,
        );
      }
      await appendLog(state.db, task.id, attempt, from, lines, state.settings.logLines);
      return { cancel: state.board.live(task.id)?.row.cancel ?? false };
    },
  );

  app.post(
    '/agent/v1/tasks/:id/result',
    {
      schema: { params: idParams, body: taskResultSchema, response: { 200: taskAnswerSchema } },
      bodyLimit: 16 * MIB,
    },
    async (request) => {
      const task = await ownTask(state, request, request.params.id);
      await requireProof(state, task, request.body);
      await state.board.finish(task.id, request.body, await certificateFor(task, request.body));
      if (request.body.inventory) await saveInventory(state.db, task.hostId, request.body.inventory);
      await tidyUp(request.body).catch((err: unknown) => {
        // the result stands: what follows from it is the server's own affair
        request.log.error({ err, task: task.id }, 'cannot tidy up after a failed task');
      });
      request.log.info(
        { task: task.id, type: task.type, outcome: request.body.outcome, code: request.body.error?.code },
        'task ended',
      );
      return { cancel: false };
    },
  );

  app.post(
    '/agent/v1/inventory',
    {
      schema: { body: inventoryReportSchema, response: { 200: taskAnswerSchema } },
      bodyLimit: 4 * MIB,
    },
    async (request) => {
      await saveInventory(state.db, request.hostId, request.body.inventory);
      state.announce({ kind: 'host', subject: request.hostId, data: { what: 'inventory' } });
      return { cancel: false };
    },
  );
};
