import { z } from 'zod';
import { byteRangeSchema, bytesSchema, imageNameSchema, versionNumberSchema } from './common.ts';
import { extendedPartitionSchema, partitionMethodSchema, partitionRoleSchema } from './manifest.ts';

export const plannedPartitionSchema = z.strictObject({
  /** name in the image: `p1` */
  name: z.string(),
  number: z.number().int(),
  start: bytesSchema,
  size: bytesSchema,
  /** size of the content in the image; less than `size` where the partition grows */
  contentSize: bytesSchema,
  /** the filesystem is grown to the partition after the data is there */
  grow: z.boolean(),
  role: partitionRoleSchema,
  method: partitionMethodSchema,
  /** libblkid's name, empty for none */
  filesystem: z.string(),
  type: z.string(),
  uuid: z.string(),
  label: z.string(),
  attributes: z.string(),
  /** of a logical MBR partition: where its extended boot record goes on the disk */
  bootRecord: bytesSchema.nullable(),
});
export type PlannedPartition = z.infer<typeof plannedPartitionSchema>;

/** A partition that begins elsewhere than in the image: whatever names it by its offset has to follow. */
export const movedPartitionSchema = z.strictObject({
  name: z.string(),
  number: z.number().int(),
  role: partitionRoleSchema,
  from: bytesSchema,
  to: bytesSchema,
});
export type MovedPartition = z.infer<typeof movedPartitionSchema>;

/** What a deploy will do to one disk, decided before the first write; what `--dry-run` prints. */
export const planSchema = z.strictObject({
  image: imageNameSchema,
  version: versionNumberSchema,
  imageDisk: z.string(),
  disk: z.strictObject({
    serial: z.string(),
    wwn: z.string(),
    size: bytesSchema,
    logicalSectorSize: z.number().int(),
  }),
  table: z.enum(['gpt', 'dos', 'none']),
  tableId: z.string(),
  /** the disk's present table:
   * - `removed`: before the first data, so that the disk cannot boot half of anything
   * - `replaced`: stays until the new one is written, because it is what says where kept data lies
   * - `stays`: is never written; boot code and the place of every partition neither
   */
  oldTable: z.enum(['removed', 'replaced', 'stays']),
  extended: extendedPartitionSchema.nullable(),
  /** what is written, in order of place */
  partitions: z.array(plannedPartitionSchema),
  /** on the disk already and part of its table: never written, discarded, zeroed or read back */
  kept: z.array(plannedPartitionSchema),
  moved: z.array(movedPartitionSchema),
  /** space that no partition's content covers: discarded after the data is there */
  unused: z.array(byteRangeSchema),
  warnings: z.array(z.string()),
});
export type Plan = z.infer<typeof planSchema>;
