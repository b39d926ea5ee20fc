import { z } from 'zod';
import type { App } from './types.ts';

/** GET /healthz: this process answers. No token: load balancers and scripts ask. */
export const healthRoutes = (app: App): void => {
  app.get('/healthz', { schema: { response: { 200: z.object({ ok: z.boolean() }) } } }, () => ({ ok: true }));
};
