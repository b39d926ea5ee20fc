import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/** a machine that was switched off in the middle of a download must find its place free when it is back */
const IDLE_MS = 20_000;
const known = new WeakSet<Socket>();

/**
 * End a GRUB's connections by a reset. GRUB 2.12 counts its TCP ports from 21550 at each start (grub-core/net/tcp.c)
 * and acknowledges nothing once it has read its file. Closed as usual, the server's end waits in LAST_ACK for
 * minutes, takes the same machine's next boot for the old connection, and that boot misses its task.
 */
export const resetWhenOver = (
  { headers, socket }: IncomingMessage,
  response: ServerResponse,
  idleMs = IDLE_MS,
): void => {
  if (!headers['user-agent']?.startsWith('GRUB')) return;
  // node:http sets its own, longer time limit behind each response
  response.once('finish', () => socket.setTimeout(idleMs));
  if (known.has(socket)) return;
  known.add(socket);
  socket.setTimeout(idleMs);
  // before node:http's own listeners, which would close it as usual
  const reset = (): void => void socket.resetAndDestroy();
  socket.prependOnceListener('end', reset);
  socket.prependOnceListener('timeout', reset);
};
