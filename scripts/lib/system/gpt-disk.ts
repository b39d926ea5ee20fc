import { open } from 'node:fs/promises';
import { run } from '../../../agent/process/run.ts';

export const MIB = 1024 * 1024;

/** type GUIDs: UEFI specification 2.11 and the Discoverable Partitions Specification */
const types = {
  bios: '21686148-6449-6E6F-744E-656564454649',
  esp: 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B',
  swap: '0657FD6D-A4AB-43C4-84E5-0933C84B4F4F',
  data: 'EBD0A0A2-B9E5-4433-87C0-68B6B72699C7',
  root: '4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709',
  linux: '0FC63DAF-8483-4772-8E79-3D69D8477DE4',
  lvm: 'E6D6D379-F507-44C2-A23C-238F2A3DF928',
  luks: 'CA7D7CCB-63ED-4C53-861C-1742536059CC',
} as const;

export interface PartitionSpec {
  type: keyof typeof types;
  /** bytes, whole MiB */
  size: number;
  /** GPT label, default the partition's name here */
  label?: string;
}

/** bytes from the start of the disk */
export interface Place {
  start: number;
  size: number;
}

export interface Layout<Name extends string> {
  /** of the disk, in bytes */
  size: number;
  partitions: Record<Name, Place & { number: number }>;
  /** for sfdisk */
  script: string;
}

/** Partitions one after the other in the order given, from 1 MiB as every installer of today; 1 MiB left for the end of GPT. */
export const layOut = <Name extends string>(specs: Record<Name, PartitionSpec>): Layout<Name> => {
  let start = MIB;
  const places: [string, Place & { number: number }][] = [];
  const lines = ['label: gpt', 'first-lba: 34'];
  for (const [at, [name, { type, size, label = name }]] of Object.entries<PartitionSpec>(specs).entries()) {
    places.push([name, { number: at + 1, start, size }]);
    lines.push(`start=${start / 512}, size=${size / 512}, type=${types[type]}, name="${label}"`);
    start += size;
  }
  return {
    size: start + MIB,
    partitions: Object.fromEntries(places) as Layout<Name>['partitions'],
    script: `${lines.join('\n')}\n`,
  };
};

/** A new sparse file with this partition table and nothing in it. */
export const makeGptDisk = async (file: string, { size, script }: Layout<string>): Promise<void> => {
  await using handle = await open(file, 'wx');
  await handle.truncate(size);
  await run('sfdisk', ['--quiet', file], { input: script });
};

/** A node for a range of a file while `work` lasts; afterwards everything that was written is in the file. */
export const onRange = async <T>(
  file: string,
  { start, size }: Place,
  work: (node: string) => Promise<T>,
): Promise<T> => {
  const range = ['--offset', String(start), '--sizelimit', String(size)];
  const node = (await run('losetup', ['--find', '--show', ...range, file])).stdout.trim();
  try {
    // the flag stays with the number: its former user may have wanted it read-only
    await run('blockdev', ['--setrw', node]);
    const result = await work(node);
    await run('blockdev', ['--flushbufs', node]);
    return result;
  } finally {
    await run('losetup', ['--detach', node]);
  }
};
