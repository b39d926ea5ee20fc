import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { resetWhenOver } from '../../../server-stub/netboot/grub-connection.ts';

const listen = async (t: ExecutionContext, idleMs: number): Promise<number> => {
  const server = createServer((request, response) => {
    resetWhenOver(request, response, idleMs);
    response.end('menu');
  });
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
};

/** One file, fetched as GRUB does. @returns what was read, the port used, and how the connection ended */
const fetchAs = async (
  agent: string,
  port: number,
  options: { localPort?: number; closes: boolean },
): Promise<{ text: string; localPort: number; end: string }> => {
  const { localPort, closes } = options;
  const socket = connect({
    host: '127.0.0.1',
    port,
    allowHalfOpen: true,
    ...(localPort ? { localPort } : {}),
  });
  await once(socket, 'connect');
  const used = socket.localPort ?? 0;
  socket.write(`GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: ${agent}\r\n\r\n`);
  const [data] = await once(socket, 'data');
  if (closes) socket.end();
  const end = await Promise.race([
    once(socket, 'error').then(([error]) => String(error.code)),
    once(socket, 'end').then(() => 'closed'),
  ]);
  socket.destroy();
  return { text: String(data), localPort: used, end };
};

test('a GRUB that has read its file is reset, so the same port can connect again at once', async (t) => {
  const port = await listen(t, 60_000);
  const first = await fetchAs('GRUB 2.12', port, { closes: true });
  t.true(first.text.endsWith('menu'));
  t.is(first.end, 'ECONNRESET');
  // the kernel would refuse this port while the connection before is remembered
  const second = await fetchAs('GRUB 2.12', port, { closes: true, localPort: first.localPort });
  t.true(second.text.endsWith('menu'));
  t.is(second.localPort, first.localPort);
});

test('a GRUB that falls silent is reset after a while', async (t) => {
  const port = await listen(t, 50);
  t.is((await fetchAs('GRUB 2.12', port, { closes: false })).end, 'ECONNRESET');
});

test('everybody else is closed as usual', async (t) => {
  const port = await listen(t, 50);
  t.is((await fetchAs('curl/8', port, { closes: true })).end, 'closed');
});
