import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { serverSink } from '../../../agent/client/server-chunks.ts';
import { createTaskServer } from '../../../agent/client/task-server.ts';
import type { ChunkSink } from '../../../agent/image/chunk-store.ts';
import { root } from '../root.ts';

const readySchema = z.object({ server: z.string(), token: z.string(), mac: z.string() });

/**
 * Run `work` with a sink that goes over HTTP to a real task server, which checks every chunk and makes it durable. The
 * server has a process of its own and an empty store in `folder`; its start is not part of `work`.
 */
export const withServer = async <T>(folder: string, work: (sink: ChunkSink) => Promise<T>): Promise<T> => {
  const data = await mkdtemp(join(folder, 'data-'));
  const child = spawn(process.execPath, [join(root, 'scripts/lib/bench/server-program.ts'), data], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const { signal } = new AbortController();
  try {
    const [line] = await Promise.race([
      once(createInterface({ input: child.stdout }), 'line'),
      once(child, 'exit').then(() => Promise.reject(new Error('Cannot start the task server of the bench'))),
    ]);
    const { server, token, mac } = readySchema.parse(JSON.parse(String(line)));
    const client = createTaskServer({ server });
    try {
      const identity = { macs: [mac], firmware: 'bios' as const, secureBoot: 'unsupported' as const };
      const agent = { version: 'bench', kernel: 'none' };
      await client.checkIn({ token, identity, agent, bootSeconds: 0 }, signal);
      const next = await client.next(signal);
      if (next.kind !== 'task') throw new Error(`Cannot capture over HTTP: the server says ${next.kind}`);
      const { id: taskId, attempt } = next.task;
      const { uploadId } = await client.openUpload(
        { taskId, attempt, image: 'bench', estimateBytes: 1 },
        signal,
      );
      return await work(serverSink(client, uploadId, { sent: 0, received: 0 }));
    } finally {
      client.close();
    }
  } finally {
    child.stdin.end();
    if (child.exitCode === null) await once(child, 'exit');
    await rm(data, { recursive: true, force: true });
  }
};
