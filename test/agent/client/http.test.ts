import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { HttpResponse, http as route } from 'msw';
import { setupServer } from 'msw/node';
import { z } from 'zod';
import { createHttp } from '../../../agent/client/http.ts';
import { ImagingError } from '../../../agent/errors.ts';

const base = 'http://fog.test';
const answer = z.object({ ok: z.boolean() });
const signal = new AbortController().signal;

const mock = setupServer(
  route.get(`${base}/good`, ({ request }) =>
    HttpResponse.json({ ok: request.headers.get('authorization') === 'Bearer secret' }),
  ),
  route.get(`${base}/html`, () => HttpResponse.html('<h1>proxy login</h1>')),
  route.get(`${base}/other-shape`, () => HttpResponse.json({ fine: 1 })),
  route.get(`${base}/refused`, () =>
    HttpResponse.json(
      {
        error: {
          code: 'LEASE_LOST',
          message: 'Cannot report: attempt 2 has it',
          details: {},
          retryable: false,
        },
      },
      { status: 409 },
    ),
  ),
  route.get(`${base}/broken`, () => new HttpResponse('oops', { status: 502 })),
  route.get(
    `${base}/moved`,
    () => new HttpResponse(null, { status: 302, headers: { location: 'http://elsewhere.test/' } }),
  ),
);
test.before(() => mock.listen({ onUnhandledFrame: 'bypass' }));
test.after.always(() => mock.close());

const codeOf = async (t: ExecutionContext, promise: Promise<unknown>): Promise<string> => {
  const error = await t.throwsAsync(promise);
  t.true(error instanceof ImagingError);
  return (error as ImagingError).code;
};

test('an answer is parsed, and the session token goes along', async (t) => {
  const client = createHttp({ server: base });
  client.authorize('secret');
  t.deepEqual(await client.json(answer, { method: 'GET', path: '/good', signal }), { ok: true });
});

test("the server's own error keeps its code and is not retryable because of its status", async (t) => {
  const client = createHttp({ server: base });
  t.is(await codeOf(t, client.json(answer, { method: 'GET', path: '/refused', signal })), 'LEASE_LOST');
});

for (const path of ['/html', '/other-shape', '/broken']) {
  test(`what is no answer is SERVER_ERROR, so it is waited out: ${path}`, async (t) => {
    const client = createHttp({ server: base });
    t.is(await codeOf(t, client.json(answer, { method: 'GET', path, signal })), 'SERVER_ERROR');
  });
}

test('a redirect to another server is not followed', async (t) => {
  const client = createHttp({ server: base });
  t.is(await codeOf(t, client.json(answer, { method: 'GET', path: '/moved', signal })), 'SERVER_UNREACHABLE');
});

test('a server that drips one byte and then nothing does not hold the agent', async (t) => {
  const server = createServer((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.write('{');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const client = createHttp({ server: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
  const code = await codeOf(t, client.json(answer, { method: 'GET', path: '/', idleMs: 200, signal }));
  t.is(code, 'SERVER_UNREACHABLE');
});

test('nobody listening is SERVER_UNREACHABLE', async (t) => {
  const client = createHttp({ server: 'http://127.0.0.1:9' });
  t.is(await codeOf(t, client.json(answer, { method: 'GET', path: '/', signal })), 'SERVER_UNREACHABLE');
});

test('a cancel while waiting for the answer is told as such', async (t) => {
  const controller = new AbortController();
  controller.abort(new ImagingError('TASK_CANCELLED', 'Cannot go on: cancelled'));
  const client = createHttp({ server: base });
  t.is(
    await codeOf(t, client.json(answer, { method: 'GET', path: '/good', signal: controller.signal })),
    'TASK_CANCELLED',
  );
});
