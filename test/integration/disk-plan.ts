import type { Disk } from '../../agent/disk/disk.ts';
import type { Plan, PlannedPartition } from '../../agent/protocol/index.ts';

export const LINUX = '0fc63daf-8483-4772-8e79-3d69d8477de4';
export const ESP = 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b';

export const partition = (
  number: number,
  start: number,
  size: number,
  more: Partial<PlannedPartition> = {},
) => ({
  name: `p${number}`,
  number,
  start,
  size,
  contentSize: size,
  grow: false,
  role: 'data' as const,
  method: 'used' as const,
  filesystem: 'ext4',
  type: LINUX,
  uuid: `0b8bd0c5-1a2f-4f5e-9c55-${String(number).padStart(12, '0')}`,
  label: '',
  attributes: '',
  bootRecord: null,
  ...more,
});

export const planFor = (disk: Disk, more: Partial<Plan>): Plan => ({
  image: 'debian',
  version: 1,
  imageDisk: 'd1',
  disk: { serial: '', wwn: '', size: disk.size, logicalSectorSize: disk.logicalSectorSize },
  table: 'gpt',
  tableId: 'd3b07384-d113-4ec6-a7d4-0123456789ab',
  oldTable: 'removed',
  extended: null,
  partitions: [],
  kept: [],
  moved: [],
  unused: [],
  warnings: [],
  ...more,
});
