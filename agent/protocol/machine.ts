import { z } from 'zod';
import { bytesSchema, firmwareSchema, machineTextSchema, macSchema, timestampSchema } from './common.ts';

export const secureBootSchema = z.enum(['on', 'off', 'setup', 'unsupported']);

/** Who this machine says it is. A claim, not a proof: MAC and SMBIOS can be forged. */
export const identitySchema = z.object({
  /** every physical interface, the one that booted first */
  macs: z.array(macSchema).min(1).max(64),
  /**
   * SMBIOS system UUID, lower case, of any version (vendors do not keep to RFC 9562); absent where the
   * vendor left zeros, ones or a joke
   */
  uuid: z.guid().optional(),
  serial: machineTextSchema.optional(),
  manufacturer: machineTextSchema.optional(),
  product: machineTextSchema.optional(),
  firmware: firmwareSchema,
  secureBoot: secureBootSchema,
});
export type Identity = z.infer<typeof identitySchema>;

export const diskFactsSchema = z.object({
  /** kernel name, for people only */
  name: z.string(),
  model: machineTextSchema.optional(),
  serial: machineTextSchema.optional(),
  wwn: machineTextSchema.optional(),
  size: bytesSchema,
  logicalSectorSize: z.number().int(),
  physicalSectorSize: z.number().int(),
  rotational: z.boolean(),
  removable: z.boolean(),
  readOnly: z.boolean(),
  transport: z.string().optional(),
  /** why the disk can never be a target, where it cannot */
  skipped: z.string().optional(),
});
export type DiskFacts = z.infer<typeof diskFactsSchema>;

/** A first inventory (the full one is its own issue). Sizes in bytes, clocks in MHz. */
export const inventorySchema = z.object({
  collectedAt: timestampSchema,
  identity: identitySchema,
  bios: z.object({ vendor: machineTextSchema, version: machineTextSchema, date: machineTextSchema }),
  board: z.object({ manufacturer: machineTextSchema, product: machineTextSchema, serial: machineTextSchema }),
  cpu: z.object({
    model: machineTextSchema,
    sockets: z.number().int(),
    cores: z.number().int(),
    threads: z.number().int(),
    maxMHz: z.number().nullable(),
  }),
  memoryBytes: bytesSchema,
  disks: z.array(diskFactsSchema),
  network: z.array(
    z.object({
      name: z.string(),
      mac: macSchema,
      driver: z.string().optional(),
      carrier: z.boolean(),
      speedMbit: z.number().nullable(),
    }),
  ),
  graphics: z.array(machineTextSchema),
  /** path of the EFI loader that boots this machine's own disk, for GRUB's chainload */
  efiLoader: z.string().max(256).optional(),
});
export type Inventory = z.infer<typeof inventorySchema>;
