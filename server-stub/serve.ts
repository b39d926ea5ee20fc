import type { AddressInfo } from 'node:net';
import type { FastifyBaseLogger } from 'fastify';
import { ImagingError, isErrno } from '../agent/errors.ts';
import { buildApp } from './app.ts';
import type { Settings } from './settings.ts';

export interface ServeOptions {
  /** folder of everything the server keeps; made if it does not exist */
  data: string;
  /** default 0.0.0.0 */
  host?: string;
  /** 0 takes a free one */
  port: number;
  /** folder with artefacts.json: kernel, initramfs, tool packs */
  artefacts?: string;
  /** a machine that is not known is registered at its first boot, with an inventory task */
  registerUnknown?: boolean;
  log?: FastifyBaseLogger;
  settings?: Partial<Settings>;
}

export interface RunningServer {
  /** base URL on this machine */
  url: string;
  port: number;
  adminToken: string;
  close(): Promise<void>;
}

const refusals = ['EADDRINUSE', 'EADDRNOTAVAIL', 'EACCES'];

/**
 * Start the server and listen.
 * @throws ImagingError CONFIG_INVALID (the port is taken, the address is not this machine's)
 */
export const startServer = async (options: ServeOptions): Promise<RunningServer> => {
  const { host = '0.0.0.0', port, ...deps } = options;
  const app = await buildApp(deps);
  try {
    await app.listen({ host, port });
  } catch (error) {
    await app.close();
    if (!refusals.some((name) => isErrno(error, name))) throw error;
    throw new ImagingError('CONFIG_INVALID', `Cannot listen on ${host}:${port}: ${String(error)}`, {
      cause: error,
    });
  }
  const address = app.server.address() as AddressInfo;
  const name = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host;
  return {
    url: `http://${name.includes(':') ? `[${name}]` : name}:${address.port}`,
    port: address.port,
    adminToken: app.fog.adminToken,
    close: () => app.close(),
  };
};
