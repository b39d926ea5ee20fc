import { randomBytes } from 'node:crypto';
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';
import { ImagingError } from '../../agent/errors.ts';
import { bearerOf } from '../http/bearer.ts';
import type { State } from '../state.ts';
import { hashToken, sameSecret } from '../store/secrets.ts';
import type { App } from './types.ts';

const COOKIE = 'fog_session';
const COOKIE_SECONDS = 12 * 3600;

export interface AdminAuth {
  /** onRequest hook: the admin token as bearer, or, to read only, the cookie of a signed-in browser */
  require(request: FastifyRequest): Promise<void>;
  /** POST /api/session: the token against a cookie, because EventSource cannot send headers */
  routes(app: App): void;
}

/** Sign-in of the one administrator. Cookies live in memory: a restart of the server ends them. */
export const createAdminAuth = (state: State): AdminAuth => {
  const cookies = new Map<string, number>();

  const require = async (request: FastifyRequest): Promise<void> => {
    const cookie = cookieOf(request);
    if (!request.headers.authorization && cookie && request.method === 'GET') {
      const until = cookies.get(hashToken(cookie));
      if (until !== undefined && until > state.now()) return;
    }
    if (!sameSecret(bearerOf(request), state.adminToken)) throw refused();
  };

  const routes = (app: App): void => {
    app.post(
      '/api/session',
      {
        schema: {
          body: z.object({ token: z.string().max(256) }),
          response: { 200: z.object({ expiresAt: z.iso.datetime() }) },
        },
        config: { rateLimit: { max: 60, timeWindow: 60_000 } },
      },
      async (request, reply) => {
        if (!sameSecret(request.body.token, state.adminToken)) throw refused();
        const now = state.now();
        for (const [hash, until] of cookies) if (until <= now) cookies.delete(hash);
        const secret = randomBytes(32).toString('base64url');
        const until = now + COOKIE_SECONDS * 1000;
        cookies.set(hashToken(secret), until);
        reply.header('set-cookie', setCookie(request, secret, COOKIE_SECONDS));
        return { expiresAt: new Date(until).toISOString() };
      },
    );

    app.delete('/api/session', { schema: { response: { 204: z.null() } } }, async (request, reply) => {
      const cookie = cookieOf(request);
      if (cookie) cookies.delete(hashToken(cookie));
      reply.header('set-cookie', setCookie(request, '', 0));
      return reply.code(204).send(null);
    });
  };

  return { require, routes };
};

const cookieOf = (request: FastifyRequest): string | undefined =>
  new RegExp(`(?:^|; )${COOKIE}=([\\w-]{1,128})(?:;|$)`).exec(request.headers.cookie ?? '')?.[1];

const setCookie = (request: FastifyRequest, value: string, seconds: number): string =>
  `${COOKIE}=${value}; Path=/; HttpOnly; SameSite=Strict; Max-Age=${seconds}${request.protocol === 'https' ? '; Secure' : ''}`;

const refused = (): ImagingError =>
  new ImagingError('UNAUTHORIZED', 'Cannot accept the request: the token is wrong');
