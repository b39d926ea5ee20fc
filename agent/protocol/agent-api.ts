import { z } from 'zod';
import {
  bytesSchema,
  imageNameSchema,
  sha256Schema,
  timestampSchema,
  versionNumberSchema,
} from './common.ts';
import { identitySchema, inventorySchema } from './machine.ts';
import { manifestSchema } from './manifest.ts';
import { assignedTaskSchema } from './task.ts';

/** Seconds: the lease, the heartbeat's jitter, and how long an outage is waited out, everywhere. */
export const leaseSeconds = 60;
export const heartbeatSeconds = { least: 15, most: 25 } as const;
export const outageSeconds = 30 * 60;
/** longest time that `next` is held open */
export const longPollSeconds = 25;
/** ids in one `chunks/missing` or pack request */
export const idsPerRequest = 1000;
/** chunks in one pack: the unit of durability on the server */
export const chunksPerPack = 64;
export { frameLimit } from '../image/limit.ts';

/** /fog/site.json in the per-boot cpio: the only place a boot learns its server and token from. */
export const siteSchema = z.strictObject({
  server: z.url(),
  token: z.string().min(20).max(128),
  /** Ed25519 public key of the server, SPKI, base64: manifests are checked against it */
  publicKey: z.string().max(256),
  /** PEM of the CA that signs the server's certificate, for https */
  ca: z.string().max(65536).optional(),
});
export type Site = z.infer<typeof siteSchema>;

export const checkInRequestSchema = z.object({
  token: z.string().max(128),
  identity: identitySchema,
  agent: z.object({ version: z.string().max(64), kernel: z.string().max(128) }),
  /** seconds from kernel start to this request */
  bootSeconds: z.number().nonnegative(),
});
export const checkInAnswerSchema = z.object({
  /** bearer token of every further request */
  session: z.string().min(20).max(128),
  host: z.object({ id: z.uuid(), name: z.string() }),
  serverTime: timestampSchema,
});

/** `next`: held open up to 25 s while there is nothing to say. */
export const nextAnswerSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('task'), task: assignedTaskSchema }),
  z.object({ kind: z.literal('waiting'), place: z.number().int(), of: z.number().int() }),
  /** nothing queued: the agent restarts the machine to its own disk */
  z.object({ kind: z.literal('nothing') }),
]);

/** Every answer to a working agent. */
export const taskAnswerSchema = z.object({ cancel: z.boolean() });

export const heartbeatSchema = z.object({ attempt: z.number().int().min(1) });
export const logSchema = z.object({
  attempt: z.number().int().min(1),
  /** number of the first line, from 0: a repeated upload is not stored twice */
  from: z.number().int().nonnegative(),
  lines: z.array(z.string().max(8000)).max(1000),
});
export const inventoryReportSchema = z.object({ inventory: inventorySchema });

/** Opens the upload of a new version: refused now rather than after hours of reading. */
export const openUploadSchema = z.object({
  taskId: z.uuid(),
  attempt: z.number().int().min(1),
  image: imageNameSchema,
  /** used bytes, an upper bound of what may be stored */
  estimateBytes: bytesSchema,
});
export const openUploadAnswerSchema = z.object({
  uploadId: z.uuid(),
  version: versionNumberSchema,
});

export const missingRequestSchema = z.object({
  uploadId: z.uuid(),
  ids: z.array(sha256Schema).min(1).max(idsPerRequest),
});
export const missingAnswerSchema = taskAnswerSchema.extend({ missing: z.array(sha256Schema) });

/** Answer to a pack (tar of `<sha256>.cacnk`) once its chunks are checked and durable. */
export const packAnswerSchema = taskAnswerSchema.extend({
  stored: z.number().int(),
  /** chunks that were there already */
  known: z.number().int(),
});

export const packRequestSchema = z.object({
  image: imageNameSchema,
  version: versionNumberSchema,
  ids: z.array(sha256Schema).min(1).max(idsPerRequest),
});

/** Versions of an image that this machine's tasks deploy or made, those of its newest task first. */
export const ownVersionsAnswerSchema = z.object({ versions: z.array(versionNumberSchema) });

/**
 * A deploy whose image is too large for its disk asks for a version that fits. Asked again with `job` until
 * it is `ready`; a refusal (too small even so, no room to make it) is an error.
 */
export const deriveRequestSchema = z.object({
  attempt: z.number().int().min(1),
  /** the target of each disk of the image */
  disks: z
    .array(z.strictObject({ name: z.string().regex(/^d\d+$/), size: bytesSchema }))
    .min(1)
    .max(16),
  /** false for a dry run: only a version that exists already */
  make: z.boolean().default(true),
  job: z.uuid().optional(),
});
export const deriveAnswerSchema = taskAnswerSchema.and(
  z.discriminatedUnion('state', [
    z.object({ state: z.literal('ready'), version: versionNumberSchema }),
    /** it could be made, and was not asked to be */
    z.object({ state: z.literal('possible') }),
    z.object({
      state: z.literal('making'),
      job: z.uuid(),
      message: z.string().max(400),
      /** bytes of work; total 0 while it is not known */
      done: bytesSchema,
      total: bytesSchema,
    }),
  ]),
);

export const publishRequestSchema = z.object({ manifest: manifestSchema });
export const publishAnswerSchema = z.object({ image: imageNameSchema, version: versionNumberSchema });
