import { z } from 'zod';
import { eventAnswerSchema } from '../api.ts';
import type { ServerEvent } from '../events.ts';
import type { State } from '../state.ts';
import { recentEvents } from '../store/event-log.ts';
import type { App } from './types.ts';

/** a viewer that reads this slowly is let go; its browser comes back and reloads */
const BACKLOG = 10_000;

/** GET /api/events (SSE: task, progress, host, image as they happen) and GET /api/events/recent. */
export const adminEventRoutes = (app: App, state: State): void => {
  app.get('/api/events', { sse: 'only', schema: { hide: true } }, async (_request, reply) => {
    const queue: ServerEvent[] = [];
    let wake: () => void = () => undefined;
    let open = true;
    const stop = state.hub.subscribe((event) => {
      if (queue.length >= BACKLOG) open = false;
      else queue.push(event);
      wake();
    });
    const end = (): void => {
      open = false;
      stop();
      wake();
    };
    reply.sse.onClose(end);
    viewers.add(end);
    // headers go out at once: a viewer knows that it is connected before anything happens
    await reply.sse.send({ event: 'hello', data: { serverTime: new Date(state.now()).toISOString() } });
    try {
      while (open) {
        const event = queue.shift();
        if (event)
          await reply.sse.send({ event: event.kind, data: { subject: event.subject, ...event.data } });
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      end();
      viewers.delete(end);
    }
  });

  const viewers = new Set<() => void>();
  // open streams would keep the server from closing
  app.addHook('preClose', async () => {
    for (const end of [...viewers]) end();
  });

  app.get(
    '/api/events/recent',
    {
      schema: {
        querystring: z.object({ limit: z.coerce.number().int().min(1).max(1000).default(100) }),
        response: { 200: z.array(eventAnswerSchema) },
      },
    },
    async (request) => {
      await state.flushEvents();
      return recentEvents(state.db, request.query.limit);
    },
  );
};
