import fastifyStatic from '@fastify/static';
import { z } from 'zod';
import { ImagingError } from '../../agent/errors.ts';
import type { State } from '../state.ts';
import type { App } from './types.ts';

/**
 * GET /chunks/<first 4>/<sha256>.cacnk: the store as plain files, for caches in between and for
 * `casync --store=http://…/chunks`. No token: who knows the hash of a chunk has its content already, or a
 * manifest that names it. A chunk never changes.
 */
export const staticChunkRoutes = async (app: App, state: State): Promise<void> => {
  await app.register(fastifyStatic, { root: state.paths.chunks, serve: false });
  app.get(
    '/chunks/:prefix/:file',
    {
      schema: {
        params: z.object({
          prefix: z.string().regex(/^[0-9a-f]{4}$/),
          file: z.string().regex(/^[0-9a-f]{64}\.cacnk$/),
        }),
      },
    },
    (request, reply) => {
      const { prefix, file } = request.params;
      if (!file.startsWith(prefix)) {
        throw new ImagingError('NOT_FOUND', `Cannot send chunk ${file}: it cannot lie in ${prefix}`);
      }
      return reply.sendFile(`${prefix}/${file}`, { maxAge: '365d', immutable: true });
    },
  );
};
