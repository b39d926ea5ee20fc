import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { release, uptime } from 'node:os';
import { dirname } from 'node:path';
import type { Config } from '../config.ts';
import { isErrno } from '../errors.ts';
import type { Log } from '../log.ts';
import type { Identity } from '../protocol/index.ts';
import { agentVersion } from '../version.ts';
import type { TaskServer } from './task-server.ts';

const SESSION_PATH = '/run/fog/session.json';

export interface SessionOptions {
  config: Config;
  server: TaskServer;
  identity: Identity;
  log: Log;
  signal: AbortSignal;
  /** where this boot's session is kept */
  sessionPath?: string;
}

/**
 * Have `server` speak for this machine; returns the host's name. The boot token works once, so a restarted agent, or a
 * command at the machine's shell, takes up the session that this boot has.
 */
export const openSession = async ({
  config,
  server,
  identity,
  log,
  signal,
  sessionPath = SESSION_PATH,
}: SessionOptions): Promise<string> => {
  const kept = await readFile(sessionPath, 'utf8').catch((error: unknown) => {
    if (isErrno(error, 'ENOENT')) return null;
    throw error;
  });
  if (kept !== null) {
    const { session, host } = JSON.parse(kept) as { session: string; host: string };
    server.resumeSession(session);
    log.info(`going on as ${host}`);
    return host;
  }
  const bootSeconds = uptime();
  const answer = await server.checkIn(
    { token: config.token, identity, agent: { version: agentVersion, kernel: release() }, bootSeconds },
    signal,
  );
  await mkdir(dirname(sessionPath), { recursive: true, mode: 0o700 });
  await writeFile(sessionPath, JSON.stringify({ session: answer.session, host: answer.host.name }), {
    mode: 0o600,
  });
  log.info(`checked in as ${answer.host.name}, ${bootSeconds.toFixed(1)} s after the kernel started`);
  return answer.host.name;
};
