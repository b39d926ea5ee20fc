import { z } from 'zod';

/** SHA-256, lower-case hex. Chunk ids, file hashes. */
export const sha256Schema = z.string().regex(/^[0-9a-f]{64}$/, 'not a SHA-256 in lower-case hex');

/** A count of bytes. Safe integers reach 8 PiB, more than any disk. */
export const bytesSchema = z.number().int().nonnegative();

/** Bytes from the start of whatever is spoken of: a disk, a partition. */
export const byteRangeSchema = z.strictObject({ start: bytesSchema, size: bytesSchema });
export type ByteRange = z.infer<typeof byteRangeSchema>;

/** MAC address, lower case with colons; dashes and upper case are accepted and normalised. */
export const macSchema = z
  .string()
  .transform((text) => text.trim().toLowerCase().replaceAll('-', ':'))
  .pipe(z.string().regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/, 'not a MAC address'));

const windowsDeviceNames = /^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$/;

/**
 * The name of an image: also a folder name, so lower case (no case twins), no separators, no leading
 * dot or dash, no trailing dot, not a Windows device name, at most 64 bytes.
 */
export const imageNameSchema = z
  .string()
  .max(64)
  .regex(/^[a-z0-9]([a-z0-9._-]*[a-z0-9_-])?$/, 'use a-z 0-9 . _ - and begin with a letter or digit')
  .refine((name) => !windowsDeviceNames.test(name), 'a reserved device name');

export const versionNumberSchema = z.number().int().min(1).max(1_000_000);

/** Seconds since 1970 would lose the zone in logs that people read: ISO 8601, UTC. */
export const timestampSchema = z.iso.datetime();

export const firmwareSchema = z.enum(['bios', 'uefi']);
export type Firmware = z.infer<typeof firmwareSchema>;

/** Free text from a machine (SMBIOS, labels): bounded, control characters replaced. */
export const machineTextSchema = z.string().transform((text) =>
  text
    .replace(/\p{Cc}/gu, ' ')
    .trim()
    .slice(0, 256),
);

/** Which disk is meant. All given fields must match. Never a kernel name: sda moves between boots. */
export const diskHintSchema = z
  .strictObject({
    serial: z.string().min(1).max(128).optional(),
    wwn: z.string().min(1).max(128).optional(),
    /** exact size in bytes */
    size: bytesSchema.optional(),
  })
  .refine((hint) => Object.values(hint).some((value) => value !== undefined), 'an empty hint names no disk');
export type DiskHint = z.infer<typeof diskHintSchema>;
