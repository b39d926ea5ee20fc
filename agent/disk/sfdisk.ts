import { z } from 'zod';
import { ImagingError } from '../errors.ts';
import type { Plan } from '../protocol/index.ts';
import { extendedTypes } from './layout.ts';
import type { DiskTable } from './table.ts';

const partitionSchema = z.object({
  node: z.string(),
  start: z.number().int().nonnegative(),
  size: z.number().int().nonnegative(),
  type: z.string(),
  uuid: z.string().default(''),
  attrs: z.string().default(''),
  bootable: z.boolean().default(false),
});
const outputSchema = z.object({
  partitiontable: z.object({
    label: z.string(),
    id: z.string().default(''),
    device: z.string(),
    unit: z.literal('sectors'),
    sectorsize: z.number().int().positive(),
    partitions: z.array(partitionSchema).default([]),
  }),
});

/**
 * `sfdisk --json`, in bytes and the spellings of the manifest. GPT names and the places of boot records are not
 * taken from here (gpt.ts and mbr-chain.ts read them); `size` is the disk's.
 *
 * @throws ImagingError LAYOUT_UNSUPPORTED, TOOL_FAILED (not sfdisk's JSON)
 */
export const parseSfdisk = (json: string, size: number): DiskTable => {
  const { partitiontable: table } = parseJson(json);
  const { label: kind, sectorsize: sector } = table;
  if (kind !== 'gpt' && kind !== 'dos') {
    throw new ImagingError(
      'LAYOUT_UNSUPPORTED',
      `Cannot use ${table.device}: a partition table of kind ${kind}`,
    );
  }
  const partitions = table.partitions.map((partition) => {
    const type = partition.type.toLowerCase();
    return {
      path: partition.node,
      number: numberOf(partition.node, table.device),
      start: partition.start * sector,
      size: partition.size * sector,
      type: kind === 'dos' ? type.padStart(2, '0') : type,
      uuid: kind === 'gpt' ? partition.uuid.toLowerCase() : '',
      label: '',
      attributes: kind === 'gpt' ? partition.attrs.trim() : partition.bootable ? 'bootable' : '',
      bootRecord: null,
    };
  });
  const containers = kind === 'dos' ? partitions.filter(({ type }) => extendedTypes.has(type)) : [];
  assertKnown(table.device, kind, partitions, containers.length);
  const [extended = null] = containers.map(({ number, start, size: length, type }) => ({
    ...{ number, start, size: length, type },
  }));
  return {
    kind,
    id: table.id.toLowerCase(),
    logicalSectorSize: sector,
    size,
    extended,
    partitions: partitions
      .filter((partition) => !containers.includes(partition))
      .sort((a, b) => a.start - b.start),
    warnings: [],
  };
};

/** DR-DOS's extended partitions, which Linux does not look into. */
const foreignExtended = new Set(['c5', 'd5']);

const assertKnown = (
  device: string,
  kind: 'gpt' | 'dos',
  partitions: readonly { number: number; type: string }[],
  containers: number,
): void => {
  const unsupported = (reason: string) =>
    new ImagingError('LAYOUT_UNSUPPORTED', `Cannot use ${device}: ${reason}`);
  if (partitions.some(({ number }) => number > 128))
    throw unsupported('it has a partition beyond number 128');
  if (kind === 'gpt') return;
  // sfdisk falls back on the MBR that guards a GPT
  if (partitions.some(({ type }) => type === 'ee')) {
    throw unsupported('its GPT is damaged, the primary copy and the backup');
  }
  if (containers > 1) throw unsupported('it has several extended partitions');
  if (partitions.some(({ type }) => foreignExtended.has(type))) {
    throw unsupported('it has an extended partition of DR-DOS');
  }
};

/**
 * The script that makes sfdisk write the plan's table; of an MBR the four primary places only, since sfdisk
 * decides by itself where it puts boot records (mbr-chain.ts writes those). Everything in it comes from an image that
 * somebody else may have made, so each field has to look like what it is.
 *
 * @throws ImagingError IMAGE_INVALID
 */
export const sfdiskScript = (plan: Plan, path: string, usable: { start: number; end: number }): string => {
  const { logicalSectorSize: sector } = plan.disk;
  const sectors = (bytes: number, what: string): number => {
    if (bytes % sector !== 0) throw invalid(what, `${bytes} is not a multiple of ${sector}`);
    return bytes / sector;
  };
  const separator = /\d$/.test(path) ? 'p' : '';
  const lines = [...plan.partitions, ...plan.kept].filter(isPrimary).map((partition) => {
    const { name, number, type, uuid, attributes } = partition;
    const fields = [
      `start=${sectors(partition.start, name)}`,
      `size=${sectors(partition.size, name)}`,
      `type=${checked(type, plan.table === 'gpt' ? guid : /^[0-9a-f]{2}$/, name)}`,
    ];
    if (plan.table === 'gpt') {
      if (uuid) fields.push(`uuid=${checked(uuid, guid, name)}`);
      if (attributes) fields.push(`attrs="${checked(attributes, /^[A-Za-z0-9:, ]+$/, name)}"`);
    } else if (attributes === 'bootable') fields.push('bootable');
    else if (attributes) throw invalid(name, `attributes ${attributes}`);
    return `${path}${separator}${number} : ${fields.join(', ')}`;
  });
  const header = [
    `label: ${plan.table}`,
    `label-id: ${checked(plan.tableId, plan.table === 'gpt' ? guid : /^0x[0-9a-f]{1,8}$/, 'disk')}`,
    'unit: sectors',
    ...(plan.table === 'gpt'
      ? [`first-lba: ${usable.start / sector}`, `last-lba: ${usable.end / sector - 1}`]
      : []),
  ];
  if (plan.extended) {
    const { number, start, size, type } = plan.extended;
    const fields = [
      `start=${sectors(start, 'extended')}`,
      `size=${sectors(size, 'extended')}`,
      `type=${checked(type, /^(05|0f|85)$/, 'extended')}`,
    ];
    lines.push(`${path}${separator}${number} : ${fields.join(', ')}`);
  }
  return `${header.join('\n')}\n\n${lines.join('\n')}\n`;
};

const isPrimary = ({ bootRecord }: { bootRecord: number | null }): boolean => bootRecord === null;

const guid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const checked = (value: string, pattern: RegExp, what: string): string => {
  if (!pattern.test(value)) throw invalid(what, JSON.stringify(value));
  return value;
};

const invalid = (what: string, reason: string): ImagingError =>
  new ImagingError('IMAGE_INVALID', `Cannot write the partition table: ${what}: ${reason}`);

const parseJson = (json: string): z.infer<typeof outputSchema> => {
  try {
    // sfdisk says "omitting empty partition (5)" on standard output, before a chain that begins with an empty record
    return outputSchema.parse(JSON.parse(json.slice(Math.max(0, json.indexOf('{')))));
  } catch (cause) {
    throw new ImagingError('TOOL_FAILED', 'Cannot read the partition table: unexpected output of sfdisk', {
      cause,
    });
  }
};

const numberOf = (node: string, device: string): number => {
  const digits = /(\d+)$/.exec(node.startsWith(device) ? node.slice(device.length) : node)?.[1];
  if (!digits) throw new ImagingError('TOOL_FAILED', `Cannot read the partition table: no number in ${node}`);
  return Number(digits);
};
