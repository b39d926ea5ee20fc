import fc from 'fast-check';
import type {
  DiskFacts,
  Firmware,
  ImageDisk,
  ImagePartition,
  Manifest,
} from '../../../agent/protocol/index.ts';

export const MIB = 1024 * 1024;
export const GIB = 1024 * MIB;
const LINUX = '0fc63daf-8483-4772-8e79-3d69d8477de4';

interface PartitionFacts {
  role?: ImagePartition['role'];
  fs?: string;
  method?: ImagePartition['method'];
  type?: string;
  label?: string;
}

export const partitionOf = (
  number: number,
  start: number,
  size: number,
  { role = 'data', fs = 'ext4', method = 'used', type = LINUX, label = '' }: PartitionFacts = {},
): ImagePartition => ({
  name: `p${number}`,
  number,
  start,
  size,
  type,
  uuid: /^..$/.test(type) ? '' : `0b8bd0c5-1a2f-4f5e-9c55-${String(number).padStart(12, '0')}`,
  label,
  attributes: '',
  role,
  filesystem: { type: fs, uuid: '', label: '', minimumBytes: null, usedBytes: null },
  method,
  reason: '',
  index: null,
  map: null,
  bootRecord: null,
  contains: [],
  damaged: [],
});

interface ImageFacts {
  size: number;
  partitions: ImagePartition[];
  table?: ImageDisk['table'];
  firmware?: Firmware;
  logicalSectorSize?: 512 | 4096;
}

export const imageOf = (facts: ImageFacts): Manifest => {
  const { size, partitions, table = 'gpt', firmware = 'uefi', logicalSectorSize = 512 } = facts;
  const tableId =
    table === 'gpt' ? 'd3b07384-d113-4ec6-a7d4-0123456789ab' : table === 'dos' ? '0x0badcafe' : '';
  return {
    format: 1,
    image: 'debian',
    version: 1,
    derivedFrom: null,
    createdAt: '2026-11-23T00:00:00Z',
    firmware,
    chunkSize: MIB,
    disks: [
      {
        name: 'd1',
        size,
        logicalSectorSize,
        model: '',
        serial: '',
        table,
        tableId,
        bootArea: null,
        extended: null,
        partitions,
      },
    ],
    os: null,
    tools: {},
  };
};

export const target = (facts: Partial<DiskFacts> & { size: number }): DiskFacts => ({
  name: 'sda',
  serial: 'S1',
  logicalSectorSize: 512,
  physicalSectorSize: 4096,
  rotational: false,
  removable: false,
  readOnly: false,
  ...facts,
});

const contents = fc.constantFrom<PartitionFacts>(
  { role: 'os', fs: 'ext4' },
  { role: 'data', fs: 'ntfs' },
  { role: 'data', fs: 'ext4', method: 'raw' },
  { role: 'esp', fs: 'vfat' },
  { role: 'bios-boot', fs: '', method: 'raw' },
  { role: 'swap', fs: 'swap', method: 'recreate' },
  { role: 'recovery', fs: 'ntfs' },
  { role: 'oem', fs: 'vfat' },
  { role: 'unknown', fs: 'xfs', method: 'raw' },
);

const label = fc.string({ unit: 'grapheme', maxLength: 10 }).filter((text) => !text.includes('\0'));

/** A sound image, some way off alignment, and a disk that is smaller, equal or larger. */
export const anyCase = fc
  .record({
    table: fc.constantFrom('gpt' as const, 'dos' as const),
    sector: fc.constantFrom(512 as const, 4096 as const),
    parts: fc.array(
      fc.record({
        gap: fc.oneof(fc.constant(0), fc.nat(40_000)),
        sectors: fc.integer({ min: 1, max: 200_000 }),
        content: contents,
        label,
      }),
      { minLength: 1, maxLength: 8 },
    ),
    firstGap: fc.oneof(fc.constant(0), fc.constant(2014), fc.nat(5000)),
    tail: fc.nat(100_000),
    difference: fc.oneof(fc.constant(0), fc.integer({ min: -400_000, max: 4_000_000 })),
    grow: fc.boolean(),
  })
  .map(({ table, sector, parts, firstGap, tail, difference, grow }) => {
    const kept = table === 'dos' ? parts.slice(0, 4) : parts;
    const reserved = 2 + Math.ceil(16384 / sector);
    let position = (table === 'gpt' ? reserved : 1) + firstGap;
    const partitions = kept.map(({ gap, sectors, content, label }, index) => {
      position += gap;
      const start = position * sector;
      position += sectors;
      const type = table === 'dos' ? '83' : LINUX;
      return partitionOf(index + 1, start, sectors * sector, {
        ...content,
        type,
        label: table === 'gpt' ? label : '',
      });
    });
    const total = position + tail + reserved;
    const size = Math.max(2000, total + difference) * sector;
    return {
      image: imageOf({ size: total * sector, partitions, table, logicalSectorSize: sector }),
      disk: target({ size, logicalSectorSize: sector }),
      grow,
    };
  });
