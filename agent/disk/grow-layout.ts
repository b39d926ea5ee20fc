import { ImagingError } from '../errors.ts';
import { alignDown, alignUp, type Item, MIB, type Placed, placeBehind, unmoved } from './layout.ts';

export interface GrowOptions {
  /** first byte behind what partitions may take */
  limit: number;
  canGrow: (item: Item) => boolean;
  /** the one that takes everything; default: in proportion to their sizes */
  only?: Item;
}

/**
 * Places of the items on a larger disk. Growth goes to the last stretch between partitions that stay where they
 * are: there everything behind the first one that grows moves towards the end, gaps are closed, and those that
 * can grow share what is won. What moved is aligned, what grew ends aligned; nothing changes for less than
 * 1 MiB. Pure.
 *
 * @throws ImagingError OPTION_REFUSED: `only` has a partition behind it that cannot make way
 */
export const growLayout = (items: readonly Item[], options: GrowOptions): Placed[] => {
  const { limit: diskEnd, canGrow, only } = options;
  const last = only ? items.indexOf(only) : items.findLastIndex(canGrow);
  if (last < 0) return items.map(unmoved);
  const from = Math.max(
    0,
    items.findLastIndex(({ mobility }, index) => index <= last && mobility !== 'free'),
  );
  const behind = items.findIndex(({ mobility }, index) => index > last && mobility !== 'free');
  const wall = items[behind];
  const stretch = items.slice(from, wall ? behind : items.length);
  const growing = new Set(only ? [only] : stretch.filter(canGrow));
  const limit = alignDown(wall ? wall.start - wall.lead : diskEnd);

  const packed = pack(stretch, growing, () => 0);
  const spare = limit - endOf(packed);
  if (spare < MIB) {
    if (only && wall) throw blocked(only, wall);
    return items.map(unmoved);
  }
  const total = [...growing].reduce((sum, { size }) => sum + size, 0);
  const grown = pack(stretch, growing, ({ size }) => alignDown((size / total) * spare));
  return [
    ...items.slice(0, from).map(unmoved),
    ...pushToEnd(stretch, growing, grown, limit),
    ...items.slice(from + stretch.length).map(unmoved),
  ];
};

/** Forward: up to the first one that grows as they were, behind it one after the other. */
const pack = (
  stretch: readonly Item[],
  growing: ReadonlySet<Item>,
  bonus: (item: Item) => number,
): Placed[] => {
  let end: number | null = null;
  return stretch.map((item) => {
    const place = end === null ? unmoved(item) : placeBehind(item, end);
    const grows = growing.has(item);
    const won = grows ? bonus(item) : 0;
    const size = won >= MIB ? alignDown(place.start + item.size + won) - place.start : item.size;
    if (grows || end !== null) end = place.start + size;
    return { ...place, size };
  });
};

/** Backward: what lies behind the last one that grows goes to the end; that one takes what rounding left. */
const pushToEnd = (
  stretch: readonly Item[],
  growing: ReadonlySet<Item>,
  grown: readonly Placed[],
  limit: number,
): Placed[] => {
  const last = stretch.findLastIndex((item) => growing.has(item));
  let end = limit;
  const trailing = stretch
    .slice(last + 1)
    .reverse()
    .map((item) => {
      const start = alignDown(end - item.size);
      const lead = Math.min(item.lead, MIB);
      end = alignDown(start - lead);
      return { start, size: item.size, bootRecord: lead > 0 ? start - lead : null };
    })
    .reverse();
  return [
    ...grown.slice(0, last),
    ...grown.slice(last, last + 1).map((place) => ({ ...place, size: end - place.start })),
    ...trailing,
  ];
};

const endOf = (places: readonly Placed[]): number =>
  alignUp(Math.max(0, ...places.map(({ start, size }) => start + size)));

const blocked = (item: Item, wall: Item): ImagingError =>
  new ImagingError(
    'OPTION_REFUSED',
    `Cannot grow ${item.name}: ${wall.name} behind it${wall.partition ? ` (${wall.partition.role})` : ''} has to stay where it is`,
    { details: { partition: item.name, behind: wall.name } },
  );
