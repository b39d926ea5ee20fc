import { ImagingError } from '../errors.ts';
import type { Extent } from '../image/extent.ts';
import { run } from '../process/run.ts';
import { uniteExtents } from './extents.ts';

const TREE_MS = 60 * 60_000;
const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** Superblock copies, and the first MiB, which btrfs leaves to boot loaders. Linux, btrfs_sb_offset(). */
const FIXED: readonly Extent[] = [
  { offset: 0, length: MIB },
  { offset: 64 * MIB, length: 64 * KIB },
  { offset: 256 * GIB, length: 64 * KIB },
];

/** Part of the logical address space and where it lies on the device: once, or twice (DUP). */
export interface BtrfsChunk {
  logical: number;
  length: number;
  profile: string;
  /** bytes from the start of the device, one for each copy */
  copies: number[];
}

export interface BtrfsLayout {
  /** first copies only: what partclone 0.3.23 and 0.3.36 list */
  first: Extent[];
  /** every copy, and the places that belong to no chunk */
  all: Extent[];
  /** bytes of all chunks, copies counted */
  allocated: number;
  /** how many extents there are of a length, bytes */
  lengths: ReadonlyMap<number, number>;
}

/**
 * What a btrfs on one device uses, from its own extent and chunk trees: `btrfs inspect-internal
 * dump-tree`. Read-only.
 *
 * @throws ImagingError TOOL_FAILED: a profile that spreads data over devices, an extent outside every chunk
 */
export const readBtrfsLayout = async (
  device: string,
  size: number,
  nodeSize: number,
  signal: AbortSignal,
): Promise<BtrfsLayout> => {
  const { stdout } = await dumpTree(device, 'chunk', signal);
  const chunks = parseBtrfsChunks(stdout);
  const logical = createCollector();
  const lengths = new Map<number, number>();
  await dumpTree(device, 'extent', signal, (line) => {
    const extent = parseBtrfsExtent(line, nodeSize);
    if (!extent) return;
    logical.add(extent);
    lengths.set(extent.length, (lengths.get(extent.length) ?? 0) + 1);
  });
  const used = logical.extents();
  if (used.length === 0) throw distrusted(`${device} has an empty extent tree`);
  const first = toDevice(used, chunks, (chunk) => chunk.copies.slice(0, 1));
  const all = toDevice(used, chunks, (chunk) => chunk.copies);
  return {
    first: uniteExtents(first, size),
    all: uniteExtents([...all, ...FIXED], size),
    allocated: chunks.reduce((sum, { length, copies }) => sum + length * copies.length, 0),
    lengths,
  };
};

const dumpTree = async (device: string, tree: string, signal: AbortSignal, onLine?: (line: string) => void) =>
  await run('btrfs', ['inspect-internal', 'dump-tree', '-t', tree, device], {
    signal,
    timeoutMs: TREE_MS,
    ...(onLine
      ? { keepOutput: false, onLine: (line: string, from: string) => from === 'stdout' && onLine(line) }
      : {}),
  });

/**
 * `dump-tree -t chunk`.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const parseBtrfsChunks = (text: string): BtrfsChunk[] => {
  const chunks: BtrfsChunk[] = [];
  for (const part of text.split(/^\titem \d+ key /m).slice(1)) {
    const logical = /^\(FIRST_CHUNK_TREE CHUNK_ITEM (\d+)\)/.exec(part)?.[1];
    if (logical === undefined) continue;
    const [, length, profile] = /^\t\tlength (\d+) owner \d+ stripe_len \d+ type (\S+)/m.exec(part) ?? [];
    const stripes = Number(/^\t\t.*\bnum_stripes (\d+)/m.exec(part)?.[1]);
    const copies = [...part.matchAll(/^\t\t\tstripe \d+ devid \d+ offset (\d+)/gm)].map(([, at]) =>
      Number(at),
    );
    if (!length || !profile || copies.length === 0 || copies.length !== stripes) {
      throw distrusted('a chunk of it is not understood');
    }
    const single = copies.length === 1 && !/RAID|DUP/.test(profile);
    const twice = copies.length === 2 && profile.split('|').includes('DUP');
    if (!single && !twice) throw distrusted(`it spreads data over several places (${profile})`);
    chunks.push({ logical: Number(logical), length: Number(length), profile, copies });
  }
  if (chunks.length === 0) throw distrusted('it has no chunks');
  return chunks.toSorted((a, b) => a.logical - b.logical);
};

/** A line of `dump-tree -t extent`: data and tree blocks; a METADATA_ITEM's third number is a level. */
export const parseBtrfsExtent = (line: string, nodeSize: number): Extent | null => {
  const [, offset, kind, third] =
    /^\titem \d+ key \((\d+) (EXTENT_ITEM|METADATA_ITEM) (\d+)\) /.exec(line) ?? [];
  if (!offset || !third) return null;
  return { offset: Number(offset), length: kind === 'METADATA_ITEM' ? nodeSize : Number(third) };
};

/** Millions of extents come in order; those that touch are kept as one. */
const createCollector = () => {
  const list: Extent[] = [];
  return {
    add: ({ offset, length }: Extent): void => {
      const last = list.at(-1);
      if (last && offset === last.offset + last.length) last.length += length;
      else list.push({ offset, length });
    },
    extents: (): Extent[] => list,
  };
};

const toDevice = (
  used: readonly Extent[],
  chunks: readonly BtrfsChunk[],
  copiesOf: (chunk: BtrfsChunk) => number[],
): Extent[] => {
  const placed: Extent[] = [];
  let number = 0;
  for (let { offset, length } of used) {
    while (length > 0) {
      let chunk = chunks[number];
      while (chunk && chunk.logical + chunk.length <= offset) chunk = chunks[++number];
      if (!chunk || offset < chunk.logical) throw distrusted(`an extent at ${offset} lies in no chunk`);
      const part = Math.min(length, chunk.logical + chunk.length - offset);
      for (const copy of copiesOf(chunk))
        placed.push({ offset: copy + offset - chunk.logical, length: part });
      offset += part;
      length -= part;
    }
  }
  return placed;
};

const distrusted = (reason: string): ImagingError =>
  new ImagingError('TOOL_FAILED', `Cannot trust a map of this btrfs: ${reason}`);
