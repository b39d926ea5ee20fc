import { z } from 'zod';
import {
  identitySchema,
  timestampSchema,
  wipeReportSchema,
  wipeTypes,
  wireErrorSchema,
} from '../../agent/protocol/index.ts';
import { verdicts } from './verdict.ts';

/**
 * What the server signs of a wipe of one machine: a certificate of erasure where all that was to be erased is, else a record that
 * says what is not. Everything that `signature` covers.
 */
export const certificateBodySchema = z.strictObject({
  format: z.literal(1),
  title: z.string(),
  /** for programs: every disk that was to be erased is, and that was read back */
  erased: z.boolean(),
  /** the same for people, in one sentence that begins with ERASED or NOT ERASED */
  conclusion: z.string(),
  outcome: z.enum(['succeeded', 'failed', 'cancelled']),
  /** why the task did not succeed */
  error: wireErrorSchema.pick({ code: true, message: true }).nullable(),
  /** what this server says of each disk of `report`, in the same order */
  verdicts: z.array(
    z.strictObject({
      name: z.string(),
      serial: z.string().nullable(),
      verdict: z.enum(verdicts),
      why: z.string().nullable(),
    }),
  ),
  /** what the methods are called and where they are written down */
  standard: z.string(),
  /** what the checks behind it do and do not show */
  claims: z.array(z.string()),
  issuedAt: timestampSchema,
  task: z.strictObject({
    id: z.uuid(),
    type: z.enum(wipeTypes),
    params: z.record(z.string(), z.unknown()),
    attempt: z.number().int(),
    startedAt: timestampSchema,
    endedAt: timestampSchema,
  }),
  host: z.strictObject({ id: z.string(), name: z.string(), macs: z.array(z.string()) }),
  /** the machine as it identified itself; null where it never did */
  machine: identitySchema.nullable(),
  operator: z.string().nullable(),
  destination: z.string().nullable(),
  /** as the agent reported it, every disk that was seen */
  report: wipeReportSchema,
});
export type CertificateBody = z.infer<typeof certificateBodySchema>;

export const certificateSchema = z.strictObject({
  certificate: z.looseObject({ format: z.literal(1) }),
  signature: z.strictObject({
    algorithm: z.literal('Ed25519'),
    /** what is signed: the member `certificate` as canonical JSON */
    over: z.literal('RFC 8785'),
    keyId: z.string().regex(/^[0-9a-f]{16}$/),
    /** SPKI, base64 */
    publicKey: z.base64(),
    value: z.base64(),
  }),
});
export type Certificate = z.infer<typeof certificateSchema>;
