import { z } from 'zod';
import { bytesSchema, machineTextSchema, timestampSchema } from './common.ts';
import { wireErrorSchema } from './error.ts';
import { diskFactsSchema } from './machine.ts';

/** Sectors of a disk, counted in its logical sectors from its first one. */
export const sectorRangeSchema = z.object({ lba: z.number().int().nonnegative(), sectors: z.number().int() });
export type SectorRange = z.infer<typeof sectorRangeSchema>;

/** Ranges that a report names; `sectors` counts all of them. */
export const missedSchema = z.object({
  sectors: z.number().int().nonnegative(),
  ranges: z.array(sectorRangeSchema).max(1000),
});

/** A part of the drive that hides from the operating system. "unknown" is a value: it is not "none". */
export const hiddenAreaSchema = z.object({
  state: z.enum(['none', 'present', 'unknown']),
  detail: z.string().max(400),
});
export type HiddenArea = z.infer<typeof hiddenAreaSchema>;

/** What SMART says, as far as the drive says anything. */
export const healthSchema = z.object({
  passed: z.boolean().nullable(),
  powerOnHours: z.number().nullable(),
  /** reallocated sectors (ATA attribute 5), grown defects (SCSI), media errors (NVMe) */
  defects: z.number().nullable(),
});
export type Health = z.infer<typeof healthSchema>;

/** One way of a drive to erase itself that was tried. */
export const purgeAttemptSchema = z.object({
  /** e.g. `nvme-sanitize-crypto` */
  method: z.string().max(64),
  outcome: z.enum(['done', 'failed']),
  /** what the drive's status said before and after, in its own words */
  before: z.string().max(2000),
  after: z.string().max(2000),
  error: z.string().max(1000).nullable(),
  seconds: z.number().nonnegative(),
});
export type PurgeAttempt = z.infer<typeof purgeAttemptSchema>;

export const purgeReportSchema = z.object({
  /** the method that worked; null for none */
  method: z.string().max(64).nullable(),
  /** what the method is worth, by which standard */
  level: z.string().max(400),
  attempts: z.array(purgeAttemptSchema).max(16),
  /** why nothing (else) was tried */
  reasons: z.array(z.string().max(1000)).max(16),
  check: z
    .object({
      /** places that held a marker of ours or other known content before */
      places: z.number().int(),
      bytes: bytesSchema,
      /** of these, places that still held it afterwards */
      survived: z.number().int(),
    })
    .nullable(),
});
export type PurgeReport = z.infer<typeof purgeReportSchema>;

export const wipePassSchema = z.object({
  number: z.number().int().min(1),
  pattern: z.enum(['zeros', 'random']),
  bytes: bytesSchema,
  seconds: z.number().nonnegative(),
  missed: missedSchema,
});

export const wipeVerificationSchema = z.object({
  method: z.enum(['full', 'sample']),
  /** ranges that were read */
  places: z.number().int(),
  bytes: bytesSchema,
  /** sectors that hold something else, or could not be read */
  wrong: missedSchema,
  /** of the last pass: AES-256 in counter mode, counter 0 at the disk's first byte; null for zeros */
  key: z.string().nullable(),
});

/**
 * What may be said of a disk. Only the two `…-verified` count as erased.
 * - `interrupted`: cut off, nothing may be said of it
 */
export const wipeStatuses = [
  'purged-verified',
  'cleared-verified',
  'signatures-removed',
  'skipped',
  'failed',
  'interrupted',
] as const;

export const isErased = (status: (typeof wipeStatuses)[number]): boolean => status.endsWith('-verified');

/** One disk that was seen, and what became of it. */
export const wipedDiskSchema = z.object({
  facts: diskFactsSchema.extend({ firmware: machineTextSchema.optional() }),
  status: z.enum(wipeStatuses),
  /** why it was skipped, or failed */
  reason: z.string().max(4000).nullable(),
  error: wireErrorSchema.nullable(),
  hidden: z.object({ hpa: hiddenAreaSchema, dco: hiddenAreaSchema }).nullable(),
  health: z.object({ before: healthSchema, after: healthSchema }).nullable(),
  purge: purgeReportSchema.nullable(),
  passes: z.array(wipePassSchema).max(64),
  verification: wipeVerificationSchema.nullable(),
  startedAt: timestampSchema.nullable(),
  endedAt: timestampSchema.nullable(),
});
export type WipedDisk = z.infer<typeof wipedDiskSchema>;

/** What a wipe did to every disk of the machine: what its certificate says. */
export const wipeReportSchema = z.object({
  agent: z.object({ version: z.string().max(64), kernel: z.string().max(128) }),
  tools: z.record(z.string(), z.string()),
  /** every disk that was seen, those that were left alone too */
  disks: z.array(wipedDiskSchema).max(1000),
});
export type WipeReport = z.infer<typeof wipeReportSchema>;
