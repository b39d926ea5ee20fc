import { z } from 'zod';
import {
  bytesSchema,
  diskHintSchema,
  imageNameSchema,
  timestampSchema,
  versionNumberSchema,
} from './common.ts';
import { wireErrorSchema } from './error.ts';
import { inventorySchema } from './machine.ts';
import { surfaceReportSchema, surfaceTestParamsSchema } from './surface.ts';
import { wipeReportSchema } from './wipe.ts';

/** What the machine does when the task has ended. */
export const afterSchema = z.enum(['reboot', 'poweroff', 'stay']);

const partitionNumberSchema = z.number().int().min(1).max(128);

export const captureParamsSchema = z.strictObject({
  image: imageNameSchema,
  disk: diskHintSchema.optional(),
  /** several disks in one image: d1, d2 … in this order; goes before `disk` */
  disks: z.array(diskHintSchema).min(1).max(16).optional(),
  /** zstd level of new chunks */
  level: z.number().int().min(1).max(19).default(3),
  /** read around sectors that cannot be read; they are zeros in the image, and it is marked damaged */
  rescue: z.boolean().default(false),
  /** keep an encrypted volume without a key as it lies on the disk, every block of it */
  raw: z.boolean().default(false),
  /** keys came with the task: set by the server, which keeps them in memory only */
  unlock: z.literal(true).optional(),
});

export const deployParamsSchema = z.strictObject({
  image: imageNameSchema,
  /** fixed when the task is created, so that every attempt writes the same version */
  version: versionNumberSchema,
  disk: diskHintSchema.optional(),
  /** for an image of several disks, which is d1, d2 …; goes before `disk` */
  disks: z.array(diskHintSchema).min(1).max(16).optional(),
  /** read back from the device after writing: a sample of the chunks, all, or nothing */
  verify: z.enum(['sample', 'full', 'none']).default('sample'),
  /** let partitions that can grow fill a larger disk */
  grow: z.boolean().default(true),
  /** number of the one partition that takes all growth; default: in proportion to their sizes */
  growPartition: partitionNumberSchema.optional(),
  /** write these partitions only, into the layout that the disk has already */
  partitions: z.array(partitionNumberSchema).min(1).max(128).optional(),
  /** leave these partitions as they are on the disk: data */
  keep: z.array(partitionNumberSchema).min(1).max(128).optional(),
  /** fresh GUIDs for disk and partitions, or a fresh MBR signature */
  newIdentity: z.boolean().default(false),
  /** give the deployed system the host's name */
  setHostname: z.boolean().default(false),
  /** fresh machine-id and SSH host keys in a deployed Linux */
  freshMachineId: z.boolean().default(false),
  /** an image with sectors that could not be read at capture is deployed only when asked for */
  allowDamaged: z.boolean().default(false),
  /** plan, show, write nothing */
  dryRun: z.boolean().default(false),
});

export const inventoryParamsSchema = z.strictObject({});

/** Common to all wipes. Exactly one way to say which disks: a wipe never guesses, and no host's default counts. */
const wipeFields = {
  disk: diskHintSchema.optional(),
  disks: z.array(diskHintSchema).min(1).max(64).optional(),
  /** every disk that is this machine's own: no USB, no storage network, none that is read-only, shared or in use */
  allInternal: z.boolean().default(false),
  /** what is read back after the last pass: all, or the tenth of NIST SP 800-88 r1 */
  verify: z.enum(['full', 'sample']).default('full'),
  /** have the drive erase itself first (sanitize, format, enhanced security erase), proved; where it cannot, the task fails */
  purge: z.boolean().default(false),
  /** with `purge`: where the drive cannot, one random pass over all of it will do */
  orOverwrite: z.boolean().default(false),
  /** time to stop it at the machine before the first write */
  countdownSeconds: z.number().int().min(0).max(3600).default(10),
  /** who answers for it; for the certificate */
  operator: z.string().trim().max(200).optional(),
  /** what becomes of the disks; for the certificate */
  destination: z.string().trim().max(200).optional(),
  /** plan, show, write nothing */
  dryRun: z.boolean().default(false),
} as const;

interface WipeDisks {
  disk?: unknown;
  disks?: unknown;
  allInternal: boolean;
}
const namesItsDisks = ({ disk, disks, allInternal }: WipeDisks): boolean =>
  Number(disk !== undefined) + Number(disks !== undefined) + Number(allInternal) === 1;
const whichDisks =
  'a wipe says which disks: by name (disk or disks; --disk SERIAL) or all internal (allInternal; --all-internal), one of the two';
const mayOverwrite = ({ purge, orOverwrite }: { purge: boolean; orOverwrite: boolean }): boolean =>
  purge || !orOverwrite;
const needsPurge =
  'orOverwrite says what happens where a purge cannot: it goes with purge (--or-overwrite, --purge)';

export const wipeParamsSchema = z
  .strictObject(wipeFields)
  .refine(namesItsDisks, whichDisks)
  .refine(mayOverwrite, needsPurge);
export const wipeFullParamsSchema = z
  .strictObject({ ...wipeFields, passes: z.number().int().min(2).max(35).default(3) })
  .refine(namesItsDisks, whichDisks)
  .refine(mayOverwrite, needsPurge);

/** Parameters per task type. A new type is a line here and a handler in agent/tasks/registry.ts. */
export const taskParamsSchemas = {
  capture: captureParamsSchema,
  deploy: deployParamsSchema,
  inventory: inventoryParamsSchema,
  'surface-test': surfaceTestParamsSchema,
  /** zeros over both ends: tables and signatures are gone, data is not */
  'wipe-fast': wipeParamsSchema,
  /** one random pass over all */
  'wipe-normal': wipeParamsSchema,
  /** several random passes */
  'wipe-full': wipeFullParamsSchema,
} as const;

export const wipeTypes = ['wipe-fast', 'wipe-normal', 'wipe-full'] as const;
export type WipeType = (typeof wipeTypes)[number];
export const isWipe = (type: string): type is WipeType => wipeTypes.some((wipe) => wipe === type);

export type TaskType = keyof typeof taskParamsSchemas;
export type TaskParams<T extends TaskType> = z.infer<(typeof taskParamsSchemas)[T]>;
export const taskTypes = Object.keys(taskParamsSchemas) as [TaskType, ...TaskType[]];
export const taskTypeSchema = z.enum(taskTypes);

export const taskStates = [
  'queued',
  'waiting',
  'running',
  'silent',
  'handed-off',
  'succeeded',
  'failed',
  'cancelled',
  'lost',
] as const;
export const taskStateSchema = z.enum(taskStates);
export type TaskState = z.infer<typeof taskStateSchema>;
export const finalStates: readonly TaskState[] = ['succeeded', 'failed', 'cancelled', 'lost'];

/**
 * Chunks that lie durably on the target, reported after each flush and handed back to the next
 * attempt. `binding` is the SHA-256 of image version, plan and disk identity: another plan or disk
 * makes it void.
 */
export const durableSchema = z.object({
  binding: z.string().length(64),
  /** partition name -> [first, last] chunk numbers, both included, ascending, disjoint */
  ranges: z.record(z.string(), z.array(z.tuple([z.number().int(), z.number().int()]))),
});
export type Durable = z.infer<typeof durableSchema>;

/**
 * What must be in no database, log, result or answer but the assigned task's own: passphrases and recovery
 * passwords that open encrypted volumes, each tried on each of them.
 */
export const taskSecretsSchema = z.strictObject({
  unlock: z.array(z.string().min(1).max(512)).min(1).max(8),
});
export type TaskSecrets = z.infer<typeof taskSecretsSchema>;

const assigned = <T extends TaskType>(type: T) =>
  z.object({
    id: z.uuid(),
    type: z.literal(type),
    params: taskParamsSchemas[type],
    /** 1 for the first try; every report must carry it */
    attempt: z.number().int().min(1),
    after: afterSchema,
    durable: durableSchema.nullable(),
    secrets: taskSecretsSchema.optional(),
  });

/** A task as the agent receives it. */
export const assignedTaskSchema = z.discriminatedUnion('type', [
  assigned('capture'),
  assigned('deploy'),
  assigned('inventory'),
  assigned('surface-test'),
  assigned('wipe-fast'),
  assigned('wipe-normal'),
  assigned('wipe-full'),
]);
export type AssignedTask = z.infer<typeof assignedTaskSchema>;

/** Share of the time that each stage was working, 0..1; the highest names the bottleneck. */
export const busySchema = z.object({
  read: z.number(),
  hash: z.number(),
  codec: z.number(),
  network: z.number(),
  write: z.number(),
});
export type Busy = z.infer<typeof busySchema>;

/** Posted at least every 2 s in every step. */
export const progressSchema = z.object({
  attempt: z.number().int().min(1),
  /** step of the handler, e.g. `plan`, `transfer`, `read-back` */
  step: z.string().max(64),
  message: z.string().max(400).default(''),
  done: bytesSchema,
  /** null while the total is not known */
  total: bytesSchema.nullable(),
  /** bytes a second over the last few seconds */
  rate: z.number().nonnegative(),
  etaSeconds: z.number().nonnegative().nullable(),
  /** seconds since `done` last moved */
  stalledSeconds: z.number().nonnegative(),
  /** of the last few seconds, while data is transferred; `bottleneck` is the busiest stage */
  busy: busySchema.optional(),
  bottleneck: z.string().max(32).optional(),
  /** set while a step runs that cannot be stopped, for the answer to a cancel */
  uninterruptible: z.string().max(200).optional(),
  durable: durableSchema.optional(),
});
export type Progress = z.infer<typeof progressSchema>;

/** One thing that was proved, and how. A succeeded result without evidence is refused. */
export const evidenceSchema = z.object({ what: z.string().max(200), proof: z.string().max(1000) });
export type Evidence = z.infer<typeof evidenceSchema>;

export const transferStatsSchema = z.object({
  seconds: z.number(),
  bytesRead: bytesSchema,
  bytesWritten: bytesSchema,
  /** compressed chunk bytes over the network */
  bytesSent: bytesSchema,
  bytesReceived: bytesSchema,
  /** plain size of all used chunks */
  bytesUsed: bytesSchema,
  chunks: z.number().int(),
  /** chunks that needed no transfer: already in the store, or already on the disk */
  chunksReused: z.number().int(),
  bytesReadBack: bytesSchema,
  busy: busySchema,
  bottleneck: z.string(),
});
export type TransferStats = z.infer<typeof transferStatsSchema>;

export const taskResultSchema = z
  .object({
    attempt: z.number().int().min(1),
    outcome: z.enum(['succeeded', 'failed', 'cancelled']),
    error: wireErrorSchema.nullable(),
    evidence: z.array(evidenceSchema).max(100),
    warnings: z.array(z.string().max(1000)).max(100),
    /** a few lines for people */
    summary: z.string().max(4000),
    stats: transferStatsSchema.nullable(),
    image: z
      .object({
        name: imageNameSchema,
        version: versionNumberSchema,
        /** the version that the server made this one from, for smaller disks */
        derivedFrom: versionNumberSchema.optional(),
      })
      .nullable(),
    disk: z.object({ serial: z.string(), wwn: z.string(), size: bytesSchema }).nullable(),
    /** the plan that was carried out, or would have been (dry run, refusal) */
    plan: z.unknown().optional(),
    inventory: inventorySchema.nullable(),
    /** of a wipe, whatever its outcome: every disk that was seen */
    wipe: wipeReportSchema.optional(),
    /** of a surface test, likewise */
    surface: surfaceReportSchema.optional(),
    endedAt: timestampSchema,
  })
  .refine(
    (result) => result.outcome !== 'succeeded' || result.evidence.length > 0,
    'success without evidence',
  )
  .refine((result) => result.outcome === 'succeeded' || result.error !== null, 'a failure without an error');
export type TaskResult = z.infer<typeof taskResultSchema>;
