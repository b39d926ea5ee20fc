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
  decryptedFrom: null,
  damaged: [],
});

interface ImageFacts {
  size: number;
  partitions: ImagePartition[];
  table?: ImageDisk['table'];
  firmware?: Firmware;
  logicalSectorSize?: 512 | 4096;
  extended?: ImageDisk['extended'];
}

export const imageOf = (facts: ImageFacts): Manifest => {
  const {
    size,
    partitions,
    table = 'gpt',
    firmware = 'uefi',
    logicalSectorSize = 512,
    extended = null,
  } = facts;
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
        extended,
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
