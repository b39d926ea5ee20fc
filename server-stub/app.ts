import { resolve } from 'node:path';
import rateLimit from '@fastify/rate-limit';
import { fastifySSE } from '@fastify/sse';
import swagger from '@fastify/swagger';
import fastify, {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyPluginAsync,
  LogController,
} from 'fastify';
import { jsonSchemaTransform, serializerCompiler, validatorCompiler } from 'fastify-type-provider-zod';
import { decideBoot } from './decide.ts';
import { errorHandler, notFoundHandler } from './http/errors.ts';
import { bootRoutes } from './netboot/boot-routes.ts';
import { createAdminAuth } from './routes/admin-auth.ts';
import { adminCertificateRoutes } from './routes/admin-certificates.ts';
import { adminEventRoutes } from './routes/admin-events.ts';
import { adminHostRoutes } from './routes/admin-hosts.ts';
import { adminImageRoutes } from './routes/admin-images.ts';
import { adminShrinkRoutes } from './routes/admin-shrink.ts';
import { adminTaskRoutes } from './routes/admin-tasks.ts';
import { checkInRoute } from './routes/agent-check-in.ts';
import { agentDeriveRoute } from './routes/agent-derive.ts';
import { agentImageRoutes } from './routes/agent-images.ts';
import { requireSession } from './routes/agent-scope.ts';
import { agentTaskRoutes } from './routes/agent-tasks.ts';
import { agentToolPackRoutes } from './routes/agent-tool-packs.ts';
import { agentUploadRoutes } from './routes/agent-uploads.ts';
import { healthRoutes } from './routes/health.ts';
import { pageRoutes } from './routes/page.ts';
import { staticChunkRoutes } from './routes/static-chunks.ts';
import { type App, room } from './routes/types.ts';
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
  await app.register(room((open) => openRoutes(open, state)));
  if (deps.artefacts !== undefined) await app.register(netboot(state, resolve(deps.artefacts)));
  await app.register(room((agent) => agentRoutes(agent, state, deps.artefacts)));
  await app.register(room((admin) => adminRoutes(admin, state)));
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

/** What firmware and boot loaders ask for: without a token, so with a limit. */
const netboot = (state: State, artefactsFolder: string): FastifyPluginAsync =>
  room(async (app) => {
    const max = state.settings.openRequestsPerMinute;
    app.addHook('onRequest', app.rateLimit({ max, timeWindow: 60_000 }));
    await app.register(
      bootRoutes({
        artefactsFolder,
        decide: (machine) => decideBoot(state, machine),
        siteFor: (token, server) => ({ server, token, publicKey: state.key.publicKey }),
        log: app.log,
      }),
    );
  });

const openRoutes = async (app: App, state: State): Promise<void> => {
  healthRoutes(app);
  pageRoutes(app);
  checkInRoute(app, state);
  await staticChunkRoutes(app, state);
};

const agentRoutes = async (app: App, state: State, artefacts: string | undefined): Promise<void> => {
  app.addHook('onRequest', requireSession(state));
  agentTaskRoutes(app, state);
  await agentUploadRoutes(app, state);
  agentImageRoutes(app, state);
  agentDeriveRoute(app, state);
  agentToolPackRoutes(app, artefacts);
};

const adminRoutes = async (app: App, state: State): Promise<void> => {
  const auth = createAdminAuth(state);
  auth.routes(app);
  await app.register(
    room((guarded) => {
      guarded.addHook('onRequest', auth.require);
      guarded.get('/api/openapi.json', { schema: { hide: true } }, () => guarded.swagger());
      adminHostRoutes(guarded, state);
      adminImageRoutes(guarded, state);
      adminShrinkRoutes(guarded, state);
      adminTaskRoutes(guarded, state);
      adminCertificateRoutes(guarded, state);
      adminEventRoutes(guarded, state);
    }),
  );
};
