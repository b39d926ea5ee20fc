import { z } from 'zod';
import { bytesSchema, diskHintSchema, timestampSchema } from './common.ts';
import { wireErrorSchema } from './error.ts';
import { diskFactsSchema } from './machine.ts';

/** `read` writes nothing; `read-write` writes a pattern to every block, reads it back and puts the content back. */
export const surfaceModeSchema = z.enum(['read', 'read-write']);
export type SurfaceMode = z.infer<typeof surfaceModeSchema>;

/** Disks by name, or all that are the machine's own: reading is harmless, so that needs no word; writing does. */
export const surfaceTestParamsSchema = z
  .strictObject({
    disk: diskHintSchema.optional(),
    disks: z.array(diskHintSchema).min(1).max(64).optional(),
    /** every disk that is this machine's own: no USB, no card, no storage network */
    allInternal: z.boolean().default(false),
    mode: surfaceModeSchema.default('read'),
  })
  .refine(
    ({ disk, disks, allInternal }) =>
      Number(disk !== undefined) + Number(disks !== undefined) + Number(allInternal) <= 1,
    'a surface test takes disk, disks or allInternal, one of them',
  )
  .refine(
    ({ disk, disks, allInternal, mode }) =>
      mode === 'read' || disk !== undefined || disks !== undefined || allInternal,
    'a read-write surface test says which disks: disk, disks or allInternal',
  );
export type SurfaceTestParams = z.infer<typeof surfaceTestParamsSchema>;

const countSchema = z.number().int().nonnegative();

/** Sectors count 512 bytes whatever the disk's own are, as in the kernel's messages and device-mapper's tables. */
export const badRangeSchema = z.object({
  lba: countSchema,
  sectors: countSchema,
  start: bytesSchema,
  size: bytesSchema,
});
export type BadRange = z.infer<typeof badRangeSchema>;

/** how many bad ranges a report names of each disk */
export const NAMED_BAD_RANGES = 1000;

export const badSurfaceSchema = z.object({
  ranges: z.array(badRangeSchema).max(NAMED_BAD_RANGES),
  /** ranges beyond those that are named, and what is in them; counted in the test's blocks */
  more: z.object({ ranges: countSchema, sectors: countSchema }),
  /** all of them, 512 bytes each */
  sectors: countSchema,
  bytes: bytesSchema,
});
export type BadSurface = z.infer<typeof badSurfaceSchema>;

/** What SMART says, as far as the drive says anything: null is unknown. */
export const smartSchema = z.object({
  /** why the drive says nothing; null where it does */
  unavailable: z.string().max(300).nullable(),
  /** the drive's own verdict on itself */
  passed: z.boolean().nullable(),
  powerOnHours: countSchema.nullable(),
  celsius: z.number().nullable(),
  /** ATA attributes 5, 197, 198, 199 */
  reallocated: countSchema.nullable(),
  pending: countSchema.nullable(),
  offlineUncorrectable: countSchema.nullable(),
  crcErrors: countSchema.nullable(),
  /** NVMe's health log; spare and used in percent, `criticalWarning` its bits */
  mediaErrors: countSchema.nullable(),
  spare: z.number().nullable(),
  spareThreshold: z.number().nullable(),
  percentageUsed: z.number().nullable(),
  criticalWarning: countSchema.nullable(),
  /** SCSI: grown defect list, and what read, write and verify could not correct */
  grownDefects: countSchema.nullable(),
  uncorrectedErrors: countSchema.nullable(),
});
export type Smart = z.infer<typeof smartSchema>;

/** cells of a latency map */
export const LATENCY_CELLS = 256;

/** A part of the disk and how long single reads in it took; without a read both times are null. */
export const latencyCellSchema = z.object({
  reads: countSchema,
  meanMs: z.number().nonnegative().nullable(),
  maxMs: z.number().nonnegative().nullable(),
});

export const latencyMapSchema = z.object({
  /** bytes of the disk in a cell; the last one may be smaller */
  cellBytes: bytesSchema,
  /** bytes of a read */
  readBytes: bytesSchema,
  cells: z.array(latencyCellSchema).max(LATENCY_CELLS),
  reads: countSchema,
  meanMs: z.number().nonnegative().nullable(),
  maxMs: z.number().nonnegative().nullable(),
});
export type LatencyMap = z.infer<typeof latencyMapSchema>;

export const surfaceVerdicts = ['good', 'suspect', 'bad'] as const;
export type SurfaceVerdict = (typeof surfaceVerdicts)[number];

/** One disk that was seen, and what the test found. */
export const surfaceDiskSchema = z.object({
  facts: diskFactsSchema,
  status: z.enum(['tested', 'skipped', 'failed', 'interrupted']),
  /** why it was skipped, or could not be tested */
  reason: z.string().max(4000).nullable(),
  error: wireErrorSchema.nullable(),
  /** null where nothing can be said: not tested, or cut off before anything bad was seen */
  verdict: z.enum(surfaceVerdicts).nullable(),
  /** of the verdict, and what else is worth knowing */
  reasons: z.array(z.string().max(400)).max(32),
  /** bytes from the disk's start that were tested */
  bytes: bytesSchema,
  /** the tool's unit, bytes; what is bad in a block was looked at sector by sector */
  blockSize: countSchema,
  seconds: z.number().nonnegative(),
  /** what the kernel counted on this disk while badblocks ran, so that nobody has to believe it; null where it does not count */
  kernel: z.object({ read: bytesSchema, written: bytesSchema }).nullable(),
  bad: badSurfaceSchema,
  latency: latencyMapSchema.nullable(),
  smart: z.object({ before: smartSchema, after: smartSchema }).nullable(),
  startedAt: timestampSchema.nullable(),
  endedAt: timestampSchema.nullable(),
});
export type SurfaceDisk = z.infer<typeof surfaceDiskSchema>;

export const surfaceReportSchema = z.object({
  mode: surfaceModeSchema,
  /** every disk that was seen, those that were left alone too */
  disks: z.array(surfaceDiskSchema).max(1000),
});
export type SurfaceReport = z.infer<typeof surfaceReportSchema>;
