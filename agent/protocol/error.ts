import { z } from 'zod';
import { type ErrorCode, errorCodes, ImagingError, toImagingError } from '../errors.ts';

const codes = Object.keys(errorCodes) as [ErrorCode, ...ErrorCode[]];

/** An error on the wire and in results: the JSON form of ImagingError. */
export const wireErrorSchema = z.object({
  code: z.enum(codes),
  message: z.string().max(4000),
  details: z.record(z.string(), z.unknown()).default({}),
  retryable: z.boolean(),
});
export type WireError = z.infer<typeof wireErrorSchema>;

/** The body of every answer with a status of 400 or more. */
export const errorBodySchema = z.object({ error: wireErrorSchema });

export const toWireError = (thrown: unknown): WireError => {
  const { code, message, details, retryable } = toImagingError(thrown);
  return { code, message: message.slice(0, 4000), details, retryable };
};

export const fromWireError = ({ code, message, details }: WireError): ImagingError =>
  new ImagingError(code, message, { details });
