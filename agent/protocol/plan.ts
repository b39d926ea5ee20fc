import { z } from 'zod';
import { byteRangeSchema, bytesSchema, imageNameSchema, versionNumberSchema } from './common.ts';
import { partitionMethodSchema, partitionRoleSchema } from './manifest.ts';

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
});
export type PlannedPartition = z.infer<typeof plannedPartitionSchema>;

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
  partitions: z.array(plannedPartitionSchema),
  /** space that no partition's content covers: discarded after the data is there */
  unused: z.array(byteRangeSchema),
  warnings: z.array(z.string()),
});
export type Plan = z.infer<typeof planSchema>;
