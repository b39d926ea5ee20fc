import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fetch from 'node-fetch';
import { ImagingError } from '../../agent/errors.ts';
import { errorBodySchema, fromWireError } from '../../agent/protocol/index.ts';

export interface ApiClient {
  get<T>(path: string): Promise<T>;
  text(path: string): Promise<string>;
  bytes(path: string): Promise<Buffer>;
  post<T>(path: string, body?: unknown): Promise<T>;
  delete(path: string): Promise<void>;
}

export interface ApiClientOptions {
  server: string;
  /** wins over the token file */
  token?: string | undefined;
  /** data folder of a server on this machine, whose token file is read */
  data: string;
}

/**
 * The admin API for the command line.
 * @throws ImagingError UNAUTHORIZED (no token), SERVER_UNREACHABLE, and whatever the server refuses with
 */
export const createApiClient = (options: ApiClientOptions): ApiClient => {
  const base = options.server.replace(/\/+$/, '');
  const send = async (method: string, path: string, body?: unknown): Promise<Buffer> => {
    const answer = await fetch(base + path, {
      method,
      headers: {
        authorization: `Bearer ${tokenOf(options)}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    }).catch((error: unknown) => {
      throw new ImagingError('SERVER_UNREACHABLE', `Cannot reach ${base}: ${String(error)}`, {
        cause: error,
      });
    });
    const bytes = Buffer.from(await answer.arrayBuffer());
    if (answer.ok) return bytes;
    throw refusal(answer.status, bytes.toString());
  };
  return {
    get: async <T>(path: string) => JSON.parse((await send('GET', path)).toString()) as T,
    text: async (path) => (await send('GET', path)).toString(),
    bytes: (path) => send('GET', path),
    post: async <T>(path: string, body?: unknown) =>
      JSON.parse((await send('POST', path, body)).toString()) as T,
    delete: async (path) => {
      await send('DELETE', path);
    },
  };
};

const tokenOf = ({ token, data }: ApiClientOptions): string => {
  if (token) return token;
  const file = join(data, 'admin-token');
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    throw new ImagingError(
      'UNAUTHORIZED',
      `Cannot sign in: no --token, no FOG_TOKEN, and ${file} cannot be read`,
      { cause: error },
    );
  }
};

const refusal = (status: number, text: string): ImagingError => {
  try {
    return fromWireError(errorBodySchema.parse(JSON.parse(text)).error);
  } catch (error) {
    return new ImagingError('SERVER_ERROR', `Cannot read the server's answer: status ${status}`, {
      cause: error,
    });
  }
};
