import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import type { Readable } from 'node:stream';
import fetch, { type BodyInit, type RequestInit, type Response } from 'node-fetch';
import type { z } from 'zod';
import { ImagingError, isImagingError } from '../errors.ts';
import { errorBodySchema, fromWireError } from '../protocol/index.ts';

export interface Http {
  /** One request, one JSON answer. Not retried here. */
  json<S extends z.ZodType>(schema: S, request: HttpRequest): Promise<z.infer<S>>;
  /** One request, the body as a stream. The caller reads it to its end or destroys it. */
  stream(request: HttpRequest): Promise<Readable>;
  /** Bearer token of all further requests. */
  authorize(token: string): void;
  close(): void;
}

export interface HttpRequest {
  method: 'GET' | 'POST' | 'PUT';
  /** below the server's URL, with a leading slash */
  path: string;
  /** sent as JSON */
  json?: unknown;
  /** sent as it is */
  body?: Uint8Array | Readable;
  /** the request fails when nothing moves for so long; default 30 s */
  idleMs?: number;
  signal: AbortSignal;
}

export interface HttpOptions {
  /** base URL of the task server */
  server: string;
  /** PEM; for https only this CA is trusted */
  ca?: string;
}

const IDLE_MS = 30_000;
const JSON_LIMIT = 8 * 1024 * 1024;

/**
 * The only importer of node-fetch: requests to one server. Bounded answers, an idle limit that also
 * catches a server that drips, errors as ImagingError: the server's own, SERVER_ERROR (an answer that
 * is none), SERVER_UNREACHABLE (no answer).
 */
export const createHttp = ({ server, ca }: HttpOptions): Http => {
  const base = server.replace(/\/+$/, '');
  const agent = base.startsWith('https:')
    ? new HttpsAgent({ keepAlive: true, ...(ca === undefined ? {} : { ca }) })
    : new HttpAgent({ keepAlive: true });
  let token: string | undefined;

  const send = async (request: HttpRequest): Promise<{ response: Response; idle: IdleGuard }> => {
    const idle = guardIdle(request);
    const init: RequestInit = {
      method: request.method,
      agent,
      redirect: 'error',
      signal: idle.signal as never,
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(request.json === undefined ? {} : { 'content-type': 'application/json' }),
        ...(request.body === undefined ? {} : { 'content-type': 'application/octet-stream' }),
      },
    };
    const body = bodyOf(request, idle);
    if (body !== undefined) init.body = body;
    try {
      const response = await fetch(base + request.path, init);
      idle.touch();
      if (response.ok) return { response, idle };
      throw await refusal(response, request, idle);
    } catch (error) {
      idle.stop();
      throw translate(error, base, request);
    }
  };

  return {
    authorize: (bearer) => {
      token = bearer;
    },
    close: () => agent.destroy(),
    json: async (schema, request) => {
      const { response, idle } = await send(request);
      try {
        const parsed = schema.safeParse(JSON.parse(await readText(response, idle)));
        if (parsed.success) return parsed.data;
        throw new ImagingError(
          'SERVER_ERROR',
          `Cannot read the answer to ${request.path}: ${parsed.error.message}`,
        );
      } catch (error) {
        throw translate(error, base, request);
      } finally {
        idle.stop();
      }
    },
    stream: async (request) => {
      const { response, idle } = await send(request);
      const body = response.body as Readable | null;
      if (!body) {
        idle.stop();
        throw new ImagingError('SERVER_ERROR', `Cannot read the answer to ${request.path}: it has no body`);
      }
      body.on('data', idle.touch);
      body.pause();
      body.once('close', idle.stop);
      return body;
    },
  };
};

interface IdleGuard {
  signal: AbortSignal;
  touch: () => void;
  stop: () => void;
}

const guardIdle = ({ idleMs = IDLE_MS, signal }: HttpRequest): IdleGuard => {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(new IdleError(idleMs)), idleMs);
  return {
    signal: AbortSignal.any([signal, controller.signal]),
    touch: () => {
      timer.refresh();
    },
    stop: () => clearTimeout(timer),
  };
};

class IdleError extends Error {
  constructor(idleMs: number) {
    super(`nothing moved for ${idleMs / 1000} s`);
    this.name = 'IdleError';
  }
}

const bodyOf = (request: HttpRequest, idle: IdleGuard): BodyInit | undefined => {
  if (request.json !== undefined) return JSON.stringify(request.json);
  if (request.body === undefined) return undefined;
  // a view: an index may have 80 MB, and there is no room for a second one
  if (request.body instanceof Uint8Array) {
    return Buffer.from(request.body.buffer, request.body.byteOffset, request.body.byteLength);
  }
  request.body.on('data', idle.touch);
  request.body.pause();
  return request.body;
};

const readText = async (response: Response, idle: IdleGuard): Promise<string> => {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of response.body ?? []) {
    idle.touch();
    const bytes = Buffer.from(part);
    size += bytes.length;
    if (size > JSON_LIMIT)
      throw new ImagingError('SERVER_ERROR', `Cannot read the answer: over ${JSON_LIMIT} bytes`);
    parts.push(bytes);
  }
  return Buffer.concat(parts).toString('utf8');
};

const refusal = async (response: Response, request: HttpRequest, idle: IdleGuard): Promise<ImagingError> => {
  const text = await readText(response, idle).catch(() => '');
  try {
    return fromWireError(errorBodySchema.parse(JSON.parse(text)).error);
  } catch {
    const reason = `status ${response.status} without a readable reason`;
    return new ImagingError('SERVER_ERROR', `Cannot ${request.method} ${request.path}: ${reason}`, {
      details: { status: response.status },
    });
  }
};

const translate = (error: unknown, base: string, { signal, path }: HttpRequest): ImagingError => {
  if (isImagingError(error)) return error;
  if (signal.aborted) {
    return isImagingError(signal.reason)
      ? signal.reason
      : new ImagingError('TASK_CANCELLED', `Cannot finish ${path}: cancelled`, { cause: signal.reason });
  }
  const reason =
    error instanceof Error ? (error.name === 'AbortError' ? 'no answer in time' : error.message) : '';
  if (error instanceof SyntaxError) {
    return new ImagingError('SERVER_ERROR', `Cannot read the answer to ${path}: ${reason}`, { cause: error });
  }
  return new ImagingError('SERVER_UNREACHABLE', `Cannot reach ${base}: ${reason}`, { cause: error });
};
