import { z } from 'zod';
import {
  byteRangeSchema,
  bytesSchema,
  firmwareSchema,
  imageNameSchema,
  machineTextSchema,
  sha256Schema,
  timestampSchema,
  versionNumberSchema,
} from './common.ts';

/** A file of an image version, beside manifest.json. */
export const imageFileSchema = z.strictObject({
  name: z.string().regex(/^(d\d+)?p\d+\.(caibx|map)$|^d\d+\.boot$/),
  size: bytesSchema,
  sha256: sha256Schema,
});
export type ImageFile = z.infer<typeof imageFileSchema>;

export const partitionRoles = [
  'esp',
  'bios-boot',
  'msr',
  'recovery',
  'oem',
  'swap',
  'os',
  'data',
  'unknown',
] as const;
export const partitionRoleSchema = z.enum(partitionRoles);
export type PartitionRole = z.infer<typeof partitionRoleSchema>;

export const filesystemFactsSchema = z.strictObject({
  /** as libblkid names it: ext4, vfat, ntfs, swap … */
  type: z.string().max(32),
  uuid: z.string().max(64),
  label: z.string().max(256),
  /** smallest size that read-only tools report, bytes; null where none can tell */
  minimumBytes: bytesSchema.nullable(),
  /** why there is no minimum though it is a kind that can be made smaller; to go on with after "and" */
  minimumReason: z.string().max(400).optional(),
  usedBytes: bytesSchema.nullable(),
});
export type FilesystemFacts = z.infer<typeof filesystemFactsSchema>;

/**
 * How a partition's content is kept:
 * - `used`: chunks; what the filesystem does not use is zero and listed in the map as unused
 * - `raw`: chunks; every block counts as used; `reason` says why
 * - `recreate`: no chunks; made anew from `filesystem` (swap)
 */
export const partitionMethodSchema = z.enum(['used', 'raw', 'recreate']);
export type PartitionMethod = z.infer<typeof partitionMethodSchema>;

/**
 * A volume inside a partition: a logical volume of LVM, the clear side of LUKS. It has no files of its own: the
 * partition's map covers what its volumes use, so that a deploy needs neither LVM nor a key.
 */
export const containedVolumeSchema = z.strictObject({
  kind: z.enum(['lvm', 'luks']),
  /** `group/volume`; for LUKS its UUID */
  name: z.string().max(256),
  uuid: z.string().max(64),
  size: bytesSchema,
  role: partitionRoleSchema,
  filesystem: filesystemFactsSchema.nullable(),
  method: partitionMethodSchema,
  reason: z.string().max(400),
});
export type ContainedVolume = z.infer<typeof containedVolumeSchema>;

export const imagePartitionSchema = z.strictObject({
  /** `p1`; on further disks `d2p1`. Base name of its files. */
  name: z.string().regex(/^(d\d+)?p\d+$/),
  number: z.number().int().min(1).max(128),
  /** bytes from the start of the disk */
  start: bytesSchema,
  size: bytesSchema,
  /** GPT type GUID in lower case, or the MBR type as two hex digits */
  type: z.string().max(36),
  uuid: z.string().max(36),
  label: z.string().max(36),
  /** GPT attributes as sfdisk prints them, or `bootable` on MBR */
  attributes: z.string().max(256),
  role: partitionRoleSchema,
  filesystem: filesystemFactsSchema.nullable(),
  method: partitionMethodSchema,
  reason: z.string().max(400),
  /** null for `recreate` */
  index: imageFileSchema.extend({ chunks: z.number().int() }).nullable(),
  map: imageFileSchema.nullable(),
  /** where the extended boot record of a logical MBR partition lies on the disk; null for all others */
  bootRecord: bytesSchema.nullable().default(null),
  contains: z.array(containedVolumeSchema).max(256).default([]),
  /** what encrypted the volume where it was captured; the image, and what is deployed from it, is its clear content */
  decryptedFrom: z.enum(['bitlocker']).nullable().default(null),
  /** what could not be read at capture, from the partition's first byte; zeros stand for it */
  damaged: z.array(byteRangeSchema).max(10_000).default([]),
});
export type ImagePartition = z.infer<typeof imagePartitionSchema>;

export const extendedPartitionSchema = z.strictObject({
  number: z.number().int().min(1).max(4),
  start: bytesSchema,
  size: bytesSchema,
  /** two hex digits: 05, 0f, 85 */
  type: z.string().max(2),
});
export type ExtendedPartition = z.infer<typeof extendedPartitionSchema>;

export const imageDiskSchema = z.strictObject({
  /** `d1`, `d2` … in capture order */
  name: z.string().regex(/^d\d+$/),
  size: bytesSchema,
  logicalSectorSize: z.union([z.literal(512), z.literal(4096)]),
  model: machineTextSchema,
  serial: machineTextSchema,
  table: z.enum(['gpt', 'dos', 'none']),
  /** disk GUID or MBR signature */
  tableId: z.string().max(36),
  /** first bytes of the disk, up to the first partition, at most 1 MiB: boot code, MBR gap */
  bootArea: imageFileSchema.nullable(),
  /** the container of logical partitions on an MBR disk; they themselves are among `partitions`, numbers from 5 */
  extended: extendedPartitionSchema.nullable().default(null),
  partitions: z.array(imagePartitionSchema).max(128),
});
export type ImageDisk = z.infer<typeof imageDiskSchema>;

/** manifest.json: everything that a deploy needs to know. Its specification is agent/image/README.md. */
export const manifestSchema = z.strictObject({
  format: z.literal(1),
  image: imageNameSchema,
  version: versionNumberSchema,
  /** the version that the server shrank to make this one; deploys of `latest` pass over such versions */
  derivedFrom: versionNumberSchema.nullable().default(null),
  createdAt: timestampSchema,
  /** how the captured machine was booted: the image is for machines that boot so */
  firmware: firmwareSchema,
  /** chunk grid, bytes, from each partition's first byte */
  chunkSize: z.number().int().min(65536).max(16777216),
  disks: z.array(imageDiskSchema).min(1).max(16),
  os: z.strictObject({ name: machineTextSchema, version: machineTextSchema }).nullable(),
  tools: z.record(z.string().max(64), z.string().max(128)),
});
export type Manifest = z.infer<typeof manifestSchema>;

/** A manifest on the wire: the signature covers the exact text, so it is checked before parsing. */
export const signedManifestSchema = z.object({
  manifest: z.string().max(4_194_304),
  /** Ed25519, base64 */
  signature: z.string().max(128),
  keyId: z.string().max(64),
});
export type SignedManifest = z.infer<typeof signedManifestSchema>;
