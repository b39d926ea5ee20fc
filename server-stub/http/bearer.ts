import type { FastifyRequest } from 'fastify';
import { ImagingError } from '../../agent/errors.ts';

/** The token of `Authorization: Bearer …`. @throws ImagingError UNAUTHORIZED */
export const bearerOf = (request: FastifyRequest): string => {
  const token = /^Bearer ([\w~+/.=-]{1,256})$/i.exec(request.headers.authorization ?? '')?.[1];
  if (!token) {
    throw new ImagingError('UNAUTHORIZED', 'Cannot accept the request: no bearer token');
  }
  return token;
};
