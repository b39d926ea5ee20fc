import rateLimit from '@fastify/rate-limit';
import { fastifySSE } from '@fastify/sse';
import swagger from '@fastify/swagger';
import fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from 'fastify';
import { jsonSchemaTransform, serializerCompiler, validatorCompiler } from 'fastify-type-provider-zod';
import { errorHandler, notFoundHandler } from './http/errors.ts';
import { createAdminAuth } from './routes/admin-auth.ts';
import { adminEventRoutes } from './routes/admin-events.ts';
import { adminHostRoutes } from './routes/admin-hosts.ts';
import { adminTaskRoutes } from './routes/admin-tasks.ts';
import { checkInRoute } from './routes/agent-check-in.ts';
import { requireSession } from './routes/agent-scope.ts';
import { agentTaskRoutes } from './routes/agent-tasks.ts';
import { healthRoutes } from './routes/health.ts';
import type { App } from './routes/types.ts';
import { openState, type State, type StateOptions } from './state.ts';

export interface AppDeps extends StateOptions {
  /** folder with kernel, initramfs and tool packs */
  artefacts?: string;
  /** default: silent */
  log?: FastifyBaseLogger;
}

declare module 'fastify' {
  interface FastifyInstance {
    /** what the routes work with; tests look behind the API here */
    fog: State;
  }
}

/** The whole server without its socket. `close()` also closes the data folder. */
export const buildApp = async (deps: AppDeps): Promise<FastifyInstance> => {
  const app = createApp(deps.log);
  const state = await openState({
    onError: (err) => app.log.error({ err }, 'background job failed'),
    ...deps,
  });
  app.decorate('fog', state);
  app.decorateRequest('hostId', '');
  app.addHook('onClose', () => state.close());
  await app.register(rateLimit, { global: false });
  await app.register(fastifySSE, { heartbeatInterval: 15_000 });
  await app.register(swagger, {
    openapi: { info: { title: 'fog-ts server', version: '1' } },
    transform: jsonSchemaTransform,
  });
  await app.register(async (open) => openRoutes(open as App, state));
  await app.register(async (agent) => agentRoutes(agent as App, state));
  await app.register(async (admin) => adminRoutes(admin as App, state));
  return app;
};

const createApp = (log: FastifyBaseLogger | undefined): FastifyInstance => {
  const app = fastify({
    ...(log ? { loggerInstance: log } : {}),
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: 1024 * 1024,
    // a long poll or a pack on a slow link is no reason to hang up; a machine that died is noticed by its lease
    requestTimeout: 0,
    keepAliveTimeout: 75_000,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 200 },
  });
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  app.setErrorHandler(errorHandler);
  app.setNotFoundHandler(notFoundHandler);
  return app;
};

const openRoutes = (app: App, state: State): void => {
  healthRoutes(app);
  checkInRoute(app, state);
};

const agentRoutes = (app: App, state: State): void => {
  app.addHook('onRequest', requireSession(state));
  agentTaskRoutes(app, state);
};

const adminRoutes = async (app: App, state: State): Promise<void> => {
  const auth = createAdminAuth(state);
  auth.routes(app);
  await app.register(async (inner) => {
    const guarded = inner as App;
    guarded.addHook('onRequest', auth.require);
    guarded.get('/api/openapi.json', { schema: { hide: true } }, () => guarded.swagger());
    adminHostRoutes(guarded, state);
    adminTaskRoutes(guarded, state);
    adminEventRoutes(guarded, state);
  });
};
