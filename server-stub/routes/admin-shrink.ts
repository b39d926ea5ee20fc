import { z } from 'zod';
import { ImagingError } from '../../agent/errors.ts';
import { toWireError } from '../../agent/protocol/index.ts';
import { newShrinkSchema, type ShrinkAnswer, shrinkAnswerSchema } from '../api.ts';
import { originOf } from '../images/shrink/find.ts';
import type { ShrinkJob } from '../images/shrink/jobs.ts';
import type { Targets } from '../images/shrink/layout.ts';
import type { State } from '../state.ts';
import { versionParams } from './agent-images.ts';
import type { App } from './types.ts';

/** /api/images/:name/versions/:version/shrink: versions for smaller disks */
export const adminShrinkRoutes = (app: App, state: State): void => {
  app.post(
    '/api/images/:name/versions/:version/shrink',
    { schema: { params: versionParams, body: newShrinkSchema, response: { 202: shrinkAnswerSchema } } },
    async (request, reply) => {
      const { name, version } = request.params;
      const targets = await targetsOf(state, name, version, request.body);
      const job = await state.shrinks.ask(name, version, targets);
      request.log.info({ image: name, version, targets: job.targets, job: job.id }, 'shrink asked for');
      return reply.code(202).send(answerOf(job));
    },
  );

  app.get(
    '/api/shrinks/:id',
    { schema: { params: z.object({ id: z.uuid() }), response: { 200: shrinkAnswerSchema } } },
    (request) => {
      const job = state.shrinks.job(request.params.id);
      if (job) return answerOf(job);
      throw new ImagingError(
        'NOT_FOUND',
        `Cannot find shrink ${request.params.id}: it ended long ago, or the server was restarted`,
      );
    },
  );
};

/** `to` is of the only disk, or of the one that is named. @throws ImagingError BAD_REQUEST, IMAGE_NOT_FOUND */
const targetsOf = async (
  state: State,
  image: string,
  version: number,
  { to, disk }: z.infer<typeof newShrinkSchema>,
): Promise<Targets | undefined> => {
  if (to === undefined) return undefined;
  if (disk !== undefined) return { [disk]: to };
  const [first, ...others] = (await originOf(state, image, version)).disks;
  if (first && others.length === 0) return { [first.name]: to };
  throw new ImagingError(
    'BAD_REQUEST',
    `Cannot shrink ${image}@${version}: it has ${others.length + 1} disks, say which one (d1, d2 …)`,
  );
};

const answerOf = (job: ShrinkJob): ShrinkAnswer => ({
  id: job.id,
  image: job.image,
  version: job.version,
  targets: job.targets,
  state: job.state,
  message: job.message,
  done: job.done,
  total: job.total,
  result: job.result,
  error: job.error && toWireError(job.error),
});
