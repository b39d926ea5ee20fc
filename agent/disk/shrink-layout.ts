import { ImagingError } from '../errors.ts';
import type { ImageDisk } from '../protocol/index.ts';
import { type Giver, giverOf, LAST_STEP, leastStep, sizeAt } from './give-space.ts';
import {
  alignDown,
  alignUp,
  diskSizeFor,
  hasFixedSize,
  type Item,
  itemsOf,
  MIB,
  type Placed,
  placeBehind,
  placeExtended,
  unmoved,
  usableRange,
  wholeSectors,
} from './layout.ts';

/** A disk's layout in a smaller version of an image. Bytes, as in the manifest. */
export interface ShrunkDisk {
  size: number;
  extended: ImageDisk['extended'];
  partitions: { name: string; start: number; size: number; bootRecord: number | null }[];
}

/**
 * The layout that makes an image fit a disk of `targetBytes`: gaps are closed, then partitions whose filesystem
 * has a known minimum give space, in proportion to what each can give; down to some slack first, below that
 * only as far as needed. Fixed roles keep their size, pinned partitions their start; what moves is aligned.
 * A disk that is large enough keeps its layout. Pure.
 *
 * @throws ImagingError TARGET_TOO_SMALL (`neededBytes`, `availableBytes`, `partition` in details)
 */
export const shrinkLayout = (disk: ImageDisk, targetBytes: number): ShrunkDisk => {
  const { logicalSectorSize: sector } = disk;
  const size = wholeSectors(Math.min(targetBytes, disk.size), sector);
  const usable = usableRange(disk.table, { size, logicalSectorSize: sector });
  const items = itemsOf(disk);
  // in front of a partition that cannot move nothing needs to give way
  const first = Math.max(
    0,
    items.findLastIndex(({ mobility }) => mobility === 'pinned'),
  );
  const before = items.slice(0, first).map(unmoved);
  const tail = items.slice(first).map((item) => withFloors(item, disk));
  const behind = Math.max(usable.start, ...before.map((place) => place.start + place.size));

  const roundDown = disk.table === 'none' ? (bytes: number) => wholeSectors(bytes, sector) : alignDown;
  const fits = (places: readonly Placed[]): boolean => endOf(places) <= usable.end;
  const packAt = (step: number) => pack(tail, behind, (one) => sizeAt(one, step, roundDown));
  const asTheyWere = tail.map(({ item }) => unmoved(item));
  const packed = fits(asTheyWere) ? asTheyWere : shrinkTo(tail, packAt, fits, usable.end, behind, disk);
  if (!packed) throw tooSmall(disk, targetBytes, tail, endOf(packAt(LAST_STEP)));
  const places = [...before, ...packed];
  return {
    size,
    extended: placeExtended(disk, items, places, usable.end),
    partitions: items.flatMap(({ name, partition }, index) => {
      const place = places[index];
      return partition && place ? [{ name, ...place }] : [];
    }),
  };
};

interface Shrinkable extends Giver {
  item: Item;
}

const withFloors = (item: Item, disk: ImageDisk): Shrinkable => {
  const { partition, size } = item;
  const rigid = partition?.method !== 'used' || hasFixedSize(partition.role);
  const minimum = rigid ? null : (partition.filesystem?.minimumBytes ?? null);
  return { item, ...giverOf(size, minimum, disk.table === 'none' ? sectorUp(disk) : alignUp) };
};

const sectorUp =
  ({ logicalSectorSize }: ImageDisk) =>
  (bytes: number): number =>
    Math.ceil(bytes / logicalSectorSize) * logicalSectorSize;

const pack = (tail: readonly Shrinkable[], from: number, sizeOf: (item: Shrinkable) => number): Placed[] => {
  let end = from;
  return tail.map((one) => {
    const { item } = one;
    const place = item.mobility === 'pinned' ? unmoved(item) : placeBehind(item, end);
    const size = sizeOf(one);
    end = place.start + size;
    return { ...place, size };
  });
};

/** The least that has to be taken: a pack never gets longer with the step. */
const shrinkTo = (
  tail: readonly Shrinkable[],
  packAt: (step: number) => Placed[],
  fits: (places: readonly Placed[]) => boolean,
  usableEnd: number,
  from: number,
  disk: ImageDisk,
): Placed[] | null => {
  const enough = leastStep((step) => fits(packAt(step)));
  if (enough === null) return null;
  // rounding leaves a few MiB: back to whoever gave most
  const sizes = packAt(enough).map(({ size }) => size);
  const unit = disk.table === 'none' ? disk.logicalSectorSize : MIB;
  const byGift = tail
    .map(({ item }, index) => ({ index, item, gift: item.size - (sizes[index] ?? 0) }))
    .sort((a, b) => b.gift - a.gift);
  const packed = () => {
    let index = 0;
    return pack(tail, from, ({ item }) => sizes[index++] ?? item.size);
  };
  for (const { index, item } of byGift) {
    const size = sizes[index] ?? item.size;
    const spare = Math.floor((usableEnd - endOf(packed())) / unit) * unit;
    const more = Math.min(spare, Math.floor((item.size - size) / unit) * unit);
    if (more <= 0) continue;
    sizes[index] = size + more;
    if (!fits(packed())) sizes[index] = size;
  }
  return packed();
};

const endOf = (places: readonly Placed[]): number =>
  Math.max(0, ...places.map(({ start, size }) => start + size));

const tooSmall = (
  disk: ImageDisk,
  targetBytes: number,
  tail: readonly Shrinkable[],
  end: number,
): ImagingError => {
  const neededBytes = diskSizeFor(disk.table, end, disk.logicalSectorSize);
  const [largest] = [...tail].sort((a, b) => b.minimum - a.minimum);
  const partition = largest?.item.partition ?? null;
  const name = partition?.name ?? largest?.item.name ?? disk.name;
  return new ImagingError(
    'TARGET_TOO_SMALL',
    `Cannot make ${disk.name} fit ${targetBytes} bytes: it needs ${neededBytes}; ${name}${kindOf(partition)} takes at least ${largest?.minimum ?? 0}`,
    { details: { neededBytes, availableBytes: targetBytes, partition: name } },
  );
};

const kindOf = (partition: Item['partition']): string => {
  if (!partition) return '';
  const { role, filesystem, method } = partition;
  return ` (${role}, ${method === 'raw' ? 'raw' : (filesystem?.type ?? 'raw')})`;
};
