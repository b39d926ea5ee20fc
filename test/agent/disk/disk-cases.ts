import type { Disk } from '../../../agent/disk/disk.ts';

/** An SSD of 512 GB, empty, with a serial number. */
export const diskOf = (name: string, more: Partial<Disk> = {}): Disk => ({
  name,
  path: `/dev/${name}`,
  model: 'Model',
  serial: `serial-${name}`,
  size: 512_110_190_592,
  logicalSectorSize: 512,
  physicalSectorSize: 512,
  rotational: false,
  removable: false,
  readOnly: false,
  sequence: 1,
  partitions: [],
  mounts: [],
  ...more,
});
