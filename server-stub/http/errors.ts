import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod';
import { type ErrorCode, ImagingError, isErrno, isImagingError } from '../../agent/errors.ts';
import { toWireError } from '../../agent/protocol/index.ts';

/** HTTP status of each code that this server answers with; every other code is 422. */
const statuses: Partial<Record<ErrorCode, number>> = {
  BAD_REQUEST: 400,
  UNAUTHORIZED: 401,
  NOT_FOUND: 404,
  IMAGE_NOT_FOUND: 404,
  CHUNK_MISSING: 404,
  CONFLICT: 409,
  LEASE_LOST: 409,
  TASK_CANCELLED: 409,
  STORE_FULL: 507,
  SCRATCH_FULL: 507,
  INTERNAL: 500,
  SERVER_ERROR: 503,
};

/**
 * Every refusal as `{error: WireError}`. What is not an ImagingError is a defect: the log gets all of
 * it, the client only that there was one.
 */
export const errorHandler = (thrown: FastifyError | Error, request: FastifyRequest, reply: FastifyReply) => {
  if (request.raw.destroyed && !request.raw.complete) {
    request.log.info({ method: request.method, route: request.routeOptions.url }, 'the caller hung up');
    return reply.code(400).send({ error: toWireError(hungUp(thrown)) });
  }
  const error = known(thrown);
  if (!error) {
    request.log.error({ err: thrown, method: request.method, route: request.routeOptions.url }, 'defect');
    const hidden = new ImagingError(
      'INTERNAL',
      'Cannot answer the request: a defect in the server; see its log',
    );
    return reply.code(500).send({ error: toWireError(hidden) });
  }
  const status = statusOf(error, thrown);
  request.log.info(
    { code: error.code, method: request.method, route: request.routeOptions.url },
    error.message,
  );
  return reply.code(status).send({ error: toWireError(error) });
};

export const notFoundHandler = (request: FastifyRequest, reply: FastifyReply) => {
  const error = new ImagingError('NOT_FOUND', `Cannot ${request.method} this address: no such thing`);
  return reply.code(404).send({ error: toWireError(error) });
};

/** Nobody reads this answer; it only ends the request. */
const hungUp = (cause: unknown): ImagingError =>
  new ImagingError('BAD_REQUEST', 'Cannot read the request: the caller hung up', { cause });

const known = (thrown: FastifyError | Error): ImagingError | undefined => {
  if (isImagingError(thrown)) return thrown;
  const storage = storageFault(thrown);
  if (storage) {
    return new ImagingError('SERVER_ERROR', `Cannot write to the database: ${storage}`, { cause: thrown });
  }
  if (isErrno(thrown, 'ENOSPC')) {
    return new ImagingError('STORE_FULL', 'Cannot store: no space left on the device', { cause: thrown });
  }
  if (hasZodFastifySchemaValidationErrors(thrown)) {
    const issues = thrown.validation.slice(0, 10).map(({ instancePath, message }) => ({
      path: instancePath,
      message: message ?? '',
    }));
    const first = issues.map(({ path, message }) => `${path || 'body'}: ${message}`).join('; ');
    return new ImagingError('BAD_REQUEST', `Cannot read the request: ${first.slice(0, 1000)}`, {
      details: { issues },
    });
  }
  const status = 'statusCode' in thrown ? thrown.statusCode : undefined;
  // too many requests, or shutting down: the same request works later
  if (status === 429 || status === 503) {
    return new ImagingError('SERVER_ERROR', `Cannot answer now: ${thrown.message}`, { cause: thrown });
  }
  if (status === undefined || status < 400 || status >= 500) return undefined;
  // fastify's own refusals: body too large, not JSON, unsupported media type
  return new ImagingError('BAD_REQUEST', `Cannot read the request: ${thrown.message}`, { cause: thrown });
};

/** SQLITE_IOERR, SQLITE_FULL: primary result codes (https://www.sqlite.org/rescode.html), the low byte of an extended one */
const storageFaults: Record<number, string> = {
  10: 'its disk fails',
  13: 'no space left on its disk',
};

/**
 * Nothing of the transaction was kept, and the same request works once an administrator has made room: a machine must not throw the
 * only report of its wipe away.
 */
const storageFault = (thrown: Error): string | undefined =>
  'errcode' in thrown && typeof thrown.errcode === 'number'
    ? storageFaults[thrown.errcode & 0xff]
    : undefined;

const statusOf = (error: ImagingError, thrown: FastifyError | Error): number => {
  const own = 'statusCode' in thrown && typeof thrown.statusCode === 'number' ? thrown.statusCode : undefined;
  return own ?? statuses[error.code] ?? 422;
};
