import { z } from 'zod';
import { ImagingError } from '../../agent/errors.ts';
import { type HostAnswer, hostAnswerSchema, newHostSchema } from '../api.ts';
import type { State } from '../state.ts';
import { addHost, getHost, type Host, listHosts, removeHost } from '../store/hosts.ts';
import type { App } from './types.ts';

const keyParams = z.object({ key: z.string().min(1).max(64).describe('id, name or MAC address') });

/** /api/hosts */
export const adminHostRoutes = (app: App, state: State): void => {
  // an inventory has tens of kilobytes: it comes with the single host only
  const listed = z.array(hostAnswerSchema.omit({ inventory: true }));
  app.get('/api/hosts', { schema: { response: { 200: listed } } }, async () =>
    (await listHosts(state.db)).map(toAnswer),
  );

  app.post(
    '/api/hosts',
    { schema: { body: newHostSchema, response: { 201: hostAnswerSchema } } },
    async (request, reply) => {
      const host = await addHost(state.db, request.body, new Date(state.now()));
      state.announce({ kind: 'host', subject: host.id, data: { name: host.name, what: 'added' } });
      return reply.code(201).send(toAnswer(host));
    },
  );

  app.get(
    '/api/hosts/:key',
    { schema: { params: keyParams, response: { 200: hostAnswerSchema } } },
    async (request) => toAnswer(await getHost(state.db, request.params.key)),
  );

  app.delete(
    '/api/hosts/:key',
    { schema: { params: keyParams, response: { 204: z.null() } } },
    async (request, reply) => {
      const host = await getHost(state.db, request.params.key);
      if (state.board.hasOpen(host.id)) {
        throw new ImagingError(
          'CONFLICT',
          `Cannot remove host ${host.name}: it has a task that has not ended`,
        );
      }
      await removeHost(state.db, host.id);
      state.announce({ kind: 'host', subject: host.id, data: { name: host.name, what: 'removed' } });
      return reply.code(204).send(null);
    },
  );
};

const toAnswer = (host: Host): HostAnswer => ({ ...host });
