const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

export interface BtrfsContents {
  /** bytes of the device in use, every copy */
  used: number;
  /** the same, first copies only */
  once: number;
  /** bytes of all chunks, every copy */
  allocated: number;
  /** bytes of tree nodes, one copy */
  metadata: number;
  /** how many extents there are of a length */
  lengths: ReadonlyMap<number, number>;
}

/** what the balance that moves everything takes beside it: at least, and as a share */
const ROOM = 256 * MIB;
const ROOM_SHARE = 10;
/** extents are not moved in the order that would pack them best; see test/integration/shrink-btrfs-minimum.test.ts */
const PACKING = 1.5;

/**
 * The size, bytes, to which a btrfs can be made smaller by all that was tried: no read-only tool tells. Resizing moves what lies
 * behind the new end, each extent whole, into chunks that have at most a tenth of the new size and of 1 GiB
 * (Linux 6.12, fs/btrfs/relocation.c prealloc_file_extent_cluster, fs/btrfs/volumes.c init_alloc_chunk_ctl_policy_regular): the
 * larger the extents, the more of each chunk stays empty, and an extent larger than a chunk cannot move at all. Never more than
 * the filesystem has. Pure.
 */
export const smallestBtrfs = (
  { used, once, allocated, metadata, lengths }: BtrfsContents,
  total: number,
): number => {
  const taken = Math.min(used, allocated);
  const copies = Math.max(1, used / Math.max(1, once));
  // trees are written anew while they are moved
  const base = taken + Math.max(ROOM, taken / ROOM_SHARE) + metadata * copies;
  const needed = (size: number): number =>
    // a chunk with a copy needs two places at once
    base + (copies - 1) * chunkSize(size) + PACKING * copies * unusable(lengths, chunkSize(size));
  let [low, high] = [Math.ceil(base / MIB), Math.ceil(total / MIB)];
  // larger chunks waste less: what fits a size fits every larger one
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (needed(middle * MIB) <= middle * MIB) high = middle;
    else low = middle + 1;
  }
  return Math.min(total, low * MIB);
};

const chunkSize = (size: number): number => Math.min(GIB, size / 10);

/** Bytes that stay empty where chunks are filled with extents of one length each: up to that length at each chunk's end. */
const unusable = (lengths: ReadonlyMap<number, number>, chunk: number): number => {
  let sum = 0;
  for (const [length, count] of lengths) {
    if (length >= chunk) return Number.POSITIVE_INFINITY;
    sum += (count * length * length) / (chunk - length);
  }
  return sum;
};
