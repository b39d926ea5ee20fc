import { z } from 'zod';
import {
  afterSchema,
  diskHintSchema,
  imageNameSchema,
  macSchema,
  progressSchema,
  taskSecretsSchema,
  taskStateSchema,
  taskTypeSchema,
  timestampSchema,
  versionNumberSchema,
  wireErrorSchema,
} from '../agent/protocol/index.ts';

/** The admin API's bodies and answers. What machines report is checked when it comes in, so answers pass it on. */

const nothingUnprintable = (text: string): boolean => !/[\p{Cc}\p{Cf}]/u.test(text);

export const hostNameSchema = z
  .string()
  .trim()
  .min(1)
  .max(64)
  .refine(nothingUnprintable, 'control characters')
  .describe('unique; people read it');

export const newHostSchema = z.strictObject({
  name: hostNameSchema,
  macs: z.array(macSchema).min(1).max(16),
  uuid: z.guid().toLowerCase().optional(),
  /** the disk that is meant on this host, for tasks that name none */
  disk: diskHintSchema.optional(),
});
export type NewHostBody = z.input<typeof newHostSchema>;

export const hostAnswerSchema = z.object({
  id: z.uuid(),
  name: z.string(),
  macs: z.array(z.string()),
  uuid: z.string().nullable(),
  disk: z.unknown().nullable(),
  efiLoader: z.string().nullable(),
  identity: z.unknown().nullable(),
  inventory: z.unknown().nullable(),
  createdAt: timestampSchema,
  lastSeen: timestampSchema.nullable(),
});
export type HostAnswer = z.infer<typeof hostAnswerSchema>;

export const versionAnswerSchema = z.object({
  version: versionNumberSchema,
  createdAt: timestampSchema,
  /** size of the captured disks */
  diskBytes: z.number(),
  /** plain bytes of the version's chunks, each counted once */
  usedBytes: z.number(),
  chunks: z.number(),
  /** chunks known to be damaged or missing, and damaged files of the version; empty for a sound one */
  hurt: z.array(z.string()),
  /** the captured version that the server made this one from, for smaller disks; null for a captured one */
  derivedFrom: versionNumberSchema.nullable(),
});
export const imageAnswerSchema = z.object({
  name: imageNameSchema,
  createdAt: timestampSchema,
  versions: z.array(versionAnswerSchema),
});
export type ImageAnswer = z.infer<typeof imageAnswerSchema>;

export const newShrinkSchema = z.strictObject({
  /** largest size of the disk, bytes; default: the smallest that leaves a system some room */
  to: z.number().int().min(1).optional(),
  /** which disk of an image of several; the others keep their size */
  disk: z
    .string()
    .regex(/^d\d+$/)
    .optional(),
});

export const shrinkAnswerSchema = z.object({
  id: z.uuid(),
  image: imageNameSchema,
  /** the captured version that the smaller one is made from */
  version: versionNumberSchema,
  /** sizes of disks by their name in the image, bytes */
  targets: z.record(z.string(), z.number()),
  state: z.enum(['queued', 'running', 'done', 'failed']),
  /** what is going on, for people */
  message: z.string(),
  /** bytes; total is 0 while it is not known */
  done: z.number(),
  total: z.number(),
  /** the smaller version, once there is one */
  result: versionNumberSchema.nullable(),
  error: wireErrorSchema.nullable(),
});
export type ShrinkAnswer = z.infer<typeof shrinkAnswerSchema>;

export const verifyAnswerSchema = z.object({
  image: imageNameSchema,
  version: versionNumberSchema,
  checked: z.number().int(),
  damaged: z.array(z.string()),
  missing: z.array(z.string()),
  /** files of the version (indexes, maps) whose size or hash is not the manifest's */
  files: z.array(z.string()),
});
export type VerifyAnswer = z.infer<typeof verifyAnswerSchema>;

export const newTaskSchema = z.strictObject({
  /** id, name or MAC address of the host */
  host: z.string().min(1).max(64),
  type: taskTypeSchema,
  /** parameters of the type; a deploy's `version` defaults to the newest */
  params: z.record(z.string(), z.unknown()).default({}),
  after: afterSchema.default('reboot'),
  /** how many hosts the administrator believes this to be for; must be right where it is given (a group's wipe will ask for it) */
  confirmHosts: z.number().int().min(1).optional(),
  /** keys of encrypted volumes, for a capture: kept in memory until the task has ended, shown by no answer */
  secrets: taskSecretsSchema.optional(),
});
export type NewTaskBody = z.input<typeof newTaskSchema>;

export const taskAnswerBodySchema = z.object({
  id: z.uuid(),
  host: z.object({ id: z.uuid(), name: z.string() }),
  type: taskTypeSchema,
  params: z.unknown(),
  after: afterSchema,
  state: taskStateSchema,
  attempt: z.number().int(),
  /** a cancel was asked for */
  cancel: z.boolean(),
  place: z.object({ place: z.number().int(), of: z.number().int() }).nullable(),
  progress: progressSchema.omit({ durable: true }).nullable(),
  createdAt: timestampSchema,
  startedAt: timestampSchema.nullable(),
  endedAt: timestampSchema.nullable(),
  silentSince: timestampSchema.nullable(),
  reason: z.string().nullable(),
  /** a TaskResult once the agent has ended it */
  result: z.unknown().nullable(),
});
export type TaskAnswer = z.infer<typeof taskAnswerBodySchema>;

export const logLineSchema = z.object({
  attempt: z.number().int(),
  number: z.number().int(),
  line: z.string(),
});

export const eventAnswerSchema = z.object({
  id: z.number().int(),
  at: timestampSchema,
  kind: z.string(),
  subject: z.string(),
  data: z.record(z.string(), z.unknown()),
});
