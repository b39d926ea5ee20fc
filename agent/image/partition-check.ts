import type { ContainedVolume, ImagePartition } from '../protocol/manifest.ts';
import { MAX_CHUNKS } from './caibx.ts';

/** smallest sector; what is damaged is cut to what a filesystem uses, which is finer than the sectors of some disks */
const SECTOR = 512;

/**
 * What makes a partition's content in a manifest impossible, in words; null for a sound one. `disk`: name of its disk.
 * Where it lies is layoutProblem's to judge. Pure.
 */
export const partitionProblem = (
  partition: ImagePartition,
  disk: string,
  chunkSize: number,
): string | null => {
  const { name, number } = partition;
  const expected = disk === 'd1' ? `p${number}` : `${disk}p${number}`;
  if (name !== expected) return `partition ${number} of ${disk} is called ${name}`;
  return filesProblem(partition, chunkSize) ?? damageProblem(partition) ?? containsProblem(partition);
};

const filesProblem = (
  { name, method, filesystem, index, map, size }: ImagePartition,
  chunkSize: number,
): string | null => {
  if (method === 'recreate') {
    if (index || map) return `${name} is made anew, and yet has files`;
    return filesystem ? null : `${name} is made anew, and nothing says as what`;
  }
  if (!index || !map) return `${name} has no index or no map`;
  if (index.name !== `${name}.caibx` || map.name !== `${name}.map`) {
    return `the files of ${name} are called ${index.name} and ${map.name}`;
  }
  const chunks = Math.ceil(size / chunkSize);
  if (chunks > MAX_CHUNKS) return `${name} has ${chunks} chunks, at most ${MAX_CHUNKS} are read`;
  return index.chunks === chunks ? null : `${name} has ${index.chunks} chunks, its size makes ${chunks}`;
};

/** In order, apart, inside: what a comparison leaves out, and what a warning says is lost. */
const damageProblem = ({ name, method, size, damaged }: ImagePartition): string | null => {
  if (damaged.length > 0 && method === 'recreate') return `${name} is made anew, and yet damaged`;
  let end = 0;
  for (const range of damaged) {
    if (range.size === 0) return `a damaged range of ${name} is empty`;
    if (range.start % SECTOR !== 0 || range.size % SECTOR !== 0) {
      return `a damaged range of ${name} does not begin and end at a sector`;
    }
    if (range.start < end) return `the damaged ranges of ${name} overlap or are out of order`;
    end = range.start + range.size;
  }
  return end > size ? `a damaged range of ${name} reaches beyond it` : null;
};

/** lvm(8), "VALID NAMES"; a name that begins with a hyphen would be an option of lvm's tools */
const volumeName = /^(?!-|\.{1,2}\/)[\w+.-]+\/(?!-|\.{1,2}$)[\w+.-]+$/;

const containsProblem = ({ name, method, size, filesystem, contains }: ImagePartition): string | null => {
  const [first] = contains;
  if (!first) return null;
  const type = filesystem?.type;
  if (method !== 'used' || (type !== 'LVM2_member' && type !== 'crypto_LUKS')) {
    return `${name} contains volumes, and is nothing that could`;
  }
  if (type === 'crypto_LUKS' && (first.kind !== 'luks' || first.size >= size)) {
    return `the first that ${name} contains is not its own clear side`;
  }
  const uuids = new Set<string>();
  for (const volume of contains) {
    const problem = volumeProblem(volume);
    if (problem) return `${name} contains ${problem}`;
    if (volume.kind === 'lvm' && uuids.has(volume.uuid)) return `${name} contains a volume twice`;
    if (volume.kind === 'lvm') uuids.add(volume.uuid);
  }
  return null;
};

/** A logical volume may be larger than the partition: it lies on several, or is thin. */
const volumeProblem = ({ kind, name, uuid, size, method }: ContainedVolume): string | null => {
  if (kind === 'lvm' ? !volumeName.test(name) : name !== uuid)
    return `a volume with the name ${JSON.stringify(name)}`;
  if (size === 0 || size % SECTOR !== 0) return `a volume of ${size} bytes`;
  // it has no content of its own that could be left out
  return method === 'recreate' ? 'a volume that is to be made anew' : null;
};
