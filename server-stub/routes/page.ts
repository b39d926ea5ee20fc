import { readFileSync } from 'node:fs';
import type { FastifyReply } from 'fastify';
import type { App } from './types.ts';

const files = [
  { url: '/', file: 'index.html', type: 'text/html; charset=utf-8' },
  { url: '/web/page.css', file: 'page.css', type: 'text/css; charset=utf-8' },
  { url: '/web/page.js', file: 'page.js', type: 'text/javascript; charset=utf-8' },
];

/** scripts and styles of this server only; nothing inline, no frames, nothing sent elsewhere */
const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'";

/** GET /: the plain results page. It holds nothing secret: its data comes from the API after signing in. */
export const pageRoutes = (app: App): void => {
  for (const { url, file, type } of files) {
    const text = readFileSync(new URL(`../web/${file}`, import.meta.url));
    app.get(url, { schema: { hide: true } }, (_request, reply: FastifyReply) =>
      reply
        .type(type)
        .header('content-security-policy', policy)
        .header('x-content-type-options', 'nosniff')
        .header('referrer-policy', 'no-referrer')
        .header('cache-control', 'no-cache')
        .send(text),
    );
  }
};
