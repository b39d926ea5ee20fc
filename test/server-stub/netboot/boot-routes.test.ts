import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { type FastifyInstance, fastify } from 'fastify';
import { errorHandler } from '../../../server-stub/http/errors.ts';
import type { BootDecision } from '../../../server-stub/netboot/boot-decision.ts';
import { bootRoutes } from '../../../server-stub/netboot/boot-routes.ts';
import { createPendingSites } from '../../../server-stub/netboot/pending-sites.ts';

const mac = '52:54:00:aa:bb:01';
const token = 'secret-token-of-this-boot-0123456789';

interface Setup {
  app: FastifyInstance;
  asked: object[];
  warnings: unknown[];
}

const setUp = async (
  t: ExecutionContext,
  decision: BootDecision,
  now: () => number = Date.now,
): Promise<Setup> => {
  const folder = mkdtempSync(join(tmpdir(), 'fog-boot-routes-'));
  writeFileSync(join(folder, 'vmlinuz'), 'the kernel');
  writeFileSync(join(folder, 'shimx64.efi'), 'shim');
  writeFileSync(join(folder, 'secret.txt'), 'not for everybody');
  const app = fastify();
  app.setErrorHandler(errorHandler);
  const asked: object[] = [];
  const warnings: unknown[] = [];
  await app.register(
    bootRoutes({
      decide: async (machine) => {
        asked.push(machine);
        return decision;
      },
      artefactsFolder: folder,
      siteFor: (given, server) => ({ server, token: given, publicKey: 'key' }),
      log: { info: () => undefined, warn: (...said: unknown[]) => void warnings.push(said) },
      pendingSites: createPendingSites({ now }),
    }),
  );
  t.teardown(async () => {
    await app.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return { app, asked, warnings };
};

const agent: BootDecision = { kind: 'agent', token };
const get = (app: FastifyInstance, url: string, headers: Record<string, string> = {}) =>
  app.inject({ url, headers: { host: '10.0.0.1:8080', ...headers } });

test('iPXE that does not say who it is is told to ask again, and nothing is decided', async (t) => {
  const { app, asked } = await setUp(t, agent);
  const answer = await get(app, '/boot/ipxe');
  t.regex(answer.body, /chain .*http:\/\/10\.0\.0\.1:8080\/boot\/ipxe\?mac=\$\{mac\}/);
  t.deepEqual(asked, []);
});

test('a machine without a task gets a script that names neither kernel nor archive', async (t) => {
  const { app, asked } = await setUp(t, { kind: 'disk' });
  const ipxe = await get(app, `/boot/ipxe?mac=${mac}&uuid=4C4C4544-0042-3510-8052-B4C04F564231`);
  const grub = await get(app, `/boot/grub/${mac}.cfg`);
  for (const { body, statusCode } of [ipxe, grub]) {
    t.is(statusCode, 200);
    t.notRegex(body, /vmlinuz|initrd|site/);
  }
  t.deepEqual(asked, [{ mac, uuid: '4c4c4544-0042-3510-8052-b4c04f564231' }, { mac }]);
});

test('a UUID that every board of a kind has is not taken for an identity', async (t) => {
  const { app, asked } = await setUp(t, { kind: 'disk' });
  await get(app, `/boot/ipxe?mac=${mac}&uuid=00000000-0000-0000-0000-000000000000`);
  await get(app, `/boot/ipxe?mac=${mac}&uuid=`);
  t.deepEqual(asked, [{ mac }, { mac }]);
});

for (const [what, url] of [
  ['iPXE', `/boot/ipxe?mac=${mac}`],
  ['GRUB', `/boot/grub/${mac}.cfg`],
]) {
  test(`${what} with a task: the token is in the archive alone, which is given out once`, async (t) => {
    const { app } = await setUp(t, agent);
    const { body } = await get(app, url as string);
    t.false(body.includes(token));
    const path = /\/boot\/site\/[0-9a-f]{32}\.cpio/.exec(body)?.[0];
    t.truthy(path);
    const first = await get(app, path as string);
    t.is(first.statusCode, 200);
    t.is(first.headers['cache-control'], 'no-store');
    t.true(first.body.includes(`{"server":"http://10.0.0.1:8080","token":"${token}"`));
    t.is((await get(app, path as string)).statusCode, 404);
  });
}

test('an archive that nobody fetches is forgotten after a quarter of an hour', async (t) => {
  let now = 0;
  const { app } = await setUp(t, agent, () => now);
  const { body } = await get(app, `/boot/ipxe?mac=${mac}`);
  now = 15 * 60_000;
  t.is((await get(app, /\/boot\/site\/\w+\.cpio/.exec(body)?.[0] as string)).statusCode, 404);
});

test('addresses that are none are refused, and nothing is decided', async (t) => {
  const { app, asked } = await setUp(t, agent);
  for (const url of [
    '/boot/ipxe?mac=x',
    `/boot/ipxe?mac=${mac}%0Ashell`,
    `/boot/ipxe?mac=${mac}&mac=${mac}`,
    `/boot/ipxe?mac=${mac}&uuid=x`,
    '/boot/grub/grub.cfg',
    '/boot/grub/..%2f..%2fadmin-token',
    '/boot/site/..%2f..%2fadmin-token.cpio',
    '/boot/site/x.cpio',
  ]) {
    t.is((await get(app, url)).statusCode, 400, url);
  }
  t.deepEqual(asked, []);
});

test('a Host header cannot put words into a script', async (t) => {
  const { app } = await setUp(t, agent);
  for (const host of ['a b', 'x:80\tshell', `\${ip}`, 'x/../y', 'a:b:c']) {
    const { body, statusCode } = await get(app, `/boot/ipxe?mac=${mac}`, { host });
    t.is(statusCode, 422, JSON.stringify(host));
    t.false(body.includes('#!ipxe'));
  }
});

test('a loader path that is not plain is left out of the script and logged', async (t) => {
  const { app, warnings } = await setUp(t, { kind: 'disk', efiLoader: '/EFI/$(reboot).efi' });
  const { body } = await get(app, `/boot/grub/${mac}.cfg`);
  t.regex(body, /for loader in \/EFI\/Microsoft/);
  t.false(body.includes('$('));
  t.is(warnings.length, 1);
});

test('kernel and loaders are plain files with ETag and ranges; nothing else of the folder is served', async (t) => {
  const { app } = await setUp(t, agent);
  const kernel = await get(app, '/boot/vmlinuz');
  t.is(kernel.body, 'the kernel');
  t.truthy(kernel.headers['etag']);
  const again = await get(app, '/boot/vmlinuz', { 'if-none-match': String(kernel.headers['etag']) });
  t.is(again.statusCode, 304);
  const part = await get(app, '/boot/vmlinuz', { range: 'bytes=4-' });
  t.is(part.statusCode, 206);
  t.is(part.body, 'kernel');
  t.is((await get(app, '/boot/files/shimx64.efi')).body, 'shim');
  for (const url of [
    '/boot/secret.txt',
    '/boot/files/secret.txt',
    '/boot/files/..%2fsecret.txt',
    '/boot/files/../secret.txt',
    '/boot/initrd.img',
    '/boot/',
  ]) {
    t.is((await get(app, url)).statusCode, 404, url);
  }
  t.is((await app.inject({ method: 'POST', url: '/boot/ipxe' })).statusCode, 404);
});

test("header names go out in the case that GRUB compares with, texts' and files'", async (t) => {
  const { app } = await setUp(t, { kind: 'disk' });
  const port = await listen(app);
  for (const url of [`/boot/grub/${mac}.cfg`, '/boot/vmlinuz']) {
    const answer = await raw(port, `GET ${url} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n`);
    t.regex(answer, /\r\nContent-Length: \d+\r\n/, url);
    t.notRegex(answer, /\r\ncontent-length/);
  }
});

test('a Host header without a port means the port of the connection, as GRUB leaves it out', async (t) => {
  const { app } = await setUp(t, agent);
  const port = await listen(app);
  const answer = await raw(
    port,
    `GET /boot/grub/${mac}.cfg HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n`,
  );
  t.true(answer.includes(`(http,127.0.0.1:${port})/boot/vmlinuz`));
});

const listen = async (app: FastifyInstance): Promise<number> =>
  Number(new URL(await app.listen({ host: '127.0.0.1', port: 0 })).port);

const raw = (port: number, request: string): Promise<string> =>
  new Promise((resolve, reject) => {
    let text = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(request));
    socket.setEncoding('utf8');
    socket.on('data', (part: string) => {
      text += part;
    });
    socket.on('end', () => resolve(text));
    socket.on('error', reject);
  });
