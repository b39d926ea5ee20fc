import { createConnection, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { ImagingError, isErrno } from '../../../agent/errors.ts';

export interface QmpEvent {
  event: string;
  data: Record<string, unknown>;
}

/** QEMU's control channel: commands answered in order, events as they happen. */
export interface Qmp {
  command(name: string, args?: Record<string, unknown>): Promise<unknown>;
  close(): void;
}

// QEMU docs/interop/qmp-spec.rst: one JSON object a line
const messageSchema = z.object({
  QMP: z.unknown().optional(),
  return: z.unknown().optional(),
  error: z.object({ class: z.string(), desc: z.string() }).optional(),
  event: z.string().optional(),
  data: z.record(z.string(), z.unknown()).optional(),
});

/**
 * Connect to a QMP socket that QEMU is about to create, and agree on capabilities.
 *
 * @throws ImagingError TOOL_FAILED when the socket does not appear while `isAlive()` says QEMU runs
 */
export const connectQmp = async (
  path: string,
  options: { onEvent: (event: QmpEvent) => void; isAlive: () => boolean; timeoutMs?: number },
): Promise<Qmp> => {
  const socket = await connect(path, options.isAlive, Date.now() + (options.timeoutMs ?? 20_000));
  const waiting: { name: string; resolve: (value: unknown) => void; reject: (error: Error) => void }[] = [];
  let closed = false;

  const command = (name: string, args: Record<string, unknown> = {}): Promise<unknown> =>
    new Promise((resolve, reject) => {
      if (closed) {
        reject(new ImagingError('TOOL_FAILED', `Cannot ask QEMU for ${name}: it has ended`));
        return;
      }
      waiting.push({ name, resolve, reject });
      socket.write(`${JSON.stringify({ execute: name, arguments: args })}\n`);
    });

  onLines(socket, (line) => {
    const message = messageSchema.parse(JSON.parse(line));
    if (message.QMP !== undefined) return;
    if (message.event !== undefined) {
      options.onEvent({ event: message.event, data: message.data ?? {} });
      return;
    }
    const asked = waiting.shift();
    if (message.error) {
      asked?.reject(
        new ImagingError('TOOL_FAILED', `Cannot ask QEMU for ${asked.name}: ${message.error.desc}`),
      );
    } else asked?.resolve(message.return);
  });
  socket.on('error', () => socket.destroy());
  socket.on('close', () => {
    closed = true;
    for (const { name, reject } of waiting.splice(0)) {
      reject(new ImagingError('TOOL_FAILED', `Cannot ask QEMU for ${name}: it has ended`));
    }
  });

  await command('qmp_capabilities');
  return { command, close: () => socket.destroy() };
};

const connect = async (path: string, isAlive: () => boolean, deadline: number): Promise<Socket> => {
  for (;;) {
    try {
      return await new Promise<Socket>((resolve, reject) => {
        const socket = createConnection(path);
        socket.once('connect', () => {
          socket.removeAllListeners('error');
          resolve(socket);
        });
        socket.once('error', reject);
      });
    } catch (error) {
      if (!isErrno(error, 'ENOENT') && !isErrno(error, 'ECONNREFUSED')) throw error;
      if (!isAlive() || Date.now() > deadline) {
        throw new ImagingError('TOOL_FAILED', 'Cannot control QEMU: its control socket did not open', {
          cause: error,
        });
      }
      await sleep(20);
    }
  }
};

const onLines = (socket: Socket, onLine: (line: string) => void): void => {
  let rest = '';
  socket.setEncoding('utf8');
  socket.on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) if (line.trim()) onLine(line);
  });
};
