import { ImagingError } from '../errors.ts';
import type { DiskFacts, ImageDisk, ImagePartition, Plan, PlannedPartition } from '../protocol/index.ts';
import { type Item, itemsOf, type Placed } from './layout.ts';
import { movesOf, planned } from './planned.ts';
import { roleOf } from './roles.ts';
import type { DiskTable, TablePartition } from './table.ts';

/** A partition that stays on the target as it is. */
export interface Kept {
  /** of its item in the layout */
  name: string;
  partition: PlannedPartition;
  warning: string | null;
}

interface Layout {
  items: Item[];
  places: Placed[];
  kept: Kept[];
}

/**
 * A layout around partitions that the disk keeps. Each has to lie where the image has it, or where this deploy
 * would put it (as an earlier one did, on a larger disk). One that the image knows nothing of is kept where
 * nothing else goes. The table describes kept partitions as it did before.
 *
 * @throws ImagingError OPTION_REFUSED, and what `layOut` throws
 */
export const keepPresent = (
  disk: ImageDisk,
  numbers: readonly number[],
  options: { present?: DiskTable },
  layOut: (items: readonly Item[]) => Placed[],
): Layout => {
  const present = presentTable(disk, options.present);
  const found = [...new Set(numbers)].map((number) => ({
    there: presentPartition(present, number, 'keep'),
    image: disk.partitions.find((one) => one.number === number) ?? null,
  }));
  if (disk.partitions.every(({ number }) => numbers.includes(number))) {
    throw refused('deploy', 'every partition of the image is to be kept');
  }
  const extras = found.flatMap(({ there, image }) => (image ? [] : [extraItem(there, disk)]));
  const asEver = [...itemsOf(disk), ...extras].sort((a, b) => a.start - b.start);
  const isKept = (item: Item) => found.some(({ image }) => image?.name === item.name);
  const pinned = asEver.map(
    (item): Item => (isKept(item) ? { ...item, mobility: 'pinned', frozen: true } : item),
  );
  // what the same deploy did before it does again; else the kept ones have to be where the image has them
  const again = layOut(asEver);
  const agrees = found.every(({ there }) => {
    const place = again[asEver.findIndex(({ name }) => name === nameOf(disk, there.number))];
    return place && isSamePlace(there, place);
  });
  const items = agrees ? asEver : pinned;
  const places = agrees ? again : layOut(pinned);
  const placeOf = (name: string) => places[items.findIndex((item) => item.name === name)];
  const kept = found.map(({ there, image }): Kept => {
    const name = nameOf(disk, there.number);
    const place = placeOf(name);
    if (!place || !isSamePlace(there, place)) throw elsewhere(there, place);
    const partition = asPlanned(there, name, image, place.bootRecord);
    return { name, partition, warning: differenceOf(there, image) };
  });
  assertSameChain(present, items, places);
  return { items, places, kept };
};

/**
 * Some partitions of the image into the layout that the disk has; its table is not written.
 *
 * @throws ImagingError OPTION_REFUSED, TARGET_TOO_SMALL (bytes of the partition)
 */
export const planIntoPresent = (
  disk: ImageDisk,
  target: DiskFacts,
  numbers: readonly number[],
  options: { present?: DiskTable; grow: boolean; growPartition?: number },
  growable: (partition: ImagePartition) => boolean,
): Omit<Plan, 'image' | 'version' | 'imageDisk' | 'disk' | 'table'> => {
  const present = presentTable(disk, options.present);
  const items = itemsOf(disk);
  const warnings: string[] = [];
  const partitions = [...new Set(numbers)].map((number): PlannedPartition => {
    const image = disk.partitions.find((one) => one.number === number);
    if (!image) throw refused(`write partition ${number}`, 'the image has no such partition');
    const there = presentPartition(present, number, 'write');
    const { start, size } = there;
    if (size < image.size) throw tooSmall(image, there, target);
    const pinned = items.some(({ name, mobility }) => name === image.name && mobility === 'pinned');
    if (pinned && start !== image.start) {
      throw refused(
        `write partition ${number}`,
        `what boots from it counts on byte ${image.start}, on ${target.name} it begins at byte ${start}`,
      );
    }
    const warning = differenceOf(there, image);
    if (warning) warnings.push(warning);
    const only = options.growPartition ?? number;
    const grow = options.grow && only === number && size > image.size && growable(image);
    if (size > image.size && !grow && image.method !== 'recreate') {
      warnings.push(`${image.name} does not fill its partition: ${size - image.size} bytes stay unused`);
    }
    const place = { start, size, bootRecord: there.bootRecord };
    return { ...planned(image, place), ...tableFields(there), grow };
  });
  partitions.sort((a, b) => a.start - b.start);
  return {
    tableId: present.id,
    oldTable: 'stays',
    extended: present.extended,
    partitions,
    kept: present.partitions
      .filter(({ number }) => !numbers.includes(number))
      .map((there) => asPlanned(there, nameOf(disk, there.number), null, there.bootRecord)),
    moved: movesOf(disk, partitions),
    unused: partitions
      .filter(({ size, contentSize }) => size > contentSize)
      .map(({ start, size, contentSize }) => ({ start: start + contentSize, size: size - contentSize })),
    warnings,
  };
};

interface Place {
  start: number;
  size: number;
}

const isSamePlace = (a: Place, b: Place): boolean => a.start === b.start && a.size === b.size;

const presentTable = (disk: ImageDisk, present: DiskTable | undefined): DiskTable => {
  const what = 'leave partitions as they are';
  if (!present || present.kind === 'none') throw refused(what, 'the disk has no partition table');
  if (present.kind !== disk.table) {
    throw refused(what, `the disk has a table of kind ${present.kind}, the image one of kind ${disk.table}`);
  }
  return present;
};

const presentPartition = (present: DiskTable, number: number, what: string): TablePartition => {
  const there = present.partitions.find((one) => one.number === number);
  if (there) return there;
  const numbers = present.partitions.map((one) => one.number).join(', ') || 'none';
  throw refused(`${what} partition ${number}`, `the disk has no such partition (it has ${numbers})`);
};

/** What the image knows nothing of, as something that others lie around. */
const extraItem = (there: TablePartition, disk: ImageDisk): Item => {
  const { number, start, size, uuid } = there;
  const what = `keep partition ${number}`;
  const { extended } = disk;
  if (there.bootRecord !== null) throw refused(what, 'it is a logical one that the image does not have');
  if (extended?.number === number) throw refused(what, 'the image has its extended partition there');
  const others = [
    ...itemsOf(disk).map((item) => ({ ...item, start: item.start - item.lead, size: item.size + item.lead })),
    ...(extended ? [{ name: 'the extended partition', ...extended }] : []),
  ];
  const other = others.find((one) => one.start < start + size && one.start + one.size > start);
  if (other) throw refused(what, `${other.name} of the image goes there`);
  const twin = disk.partitions.find((one) => uuid !== '' && one.uuid === uuid);
  if (twin) throw refused(what, `${twin.name} of the image has the same GUID`);
  return {
    ...{ name: nameOf(disk, number), start, size, lead: 0, partition: null },
    ...{ mobility: 'pinned', frozen: true },
  };
};

const nameOf = (disk: ImageDisk, number: number): string =>
  disk.name === 'd1' ? `p${number}` : `${disk.name}p${number}`;

const tableFields = ({ type, uuid, label, attributes }: TablePartition) => ({
  type,
  uuid,
  label,
  attributes,
});

const asPlanned = (
  there: TablePartition,
  name: string,
  image: ImagePartition | null,
  bootRecord: number | null,
): PlannedPartition => ({
  name,
  number: there.number,
  start: there.start,
  size: there.size,
  contentSize: there.size,
  grow: false,
  role: image?.role ?? roleOf({ type: there.type, filesystem: '' }),
  method: image?.method ?? 'raw',
  filesystem: image?.filesystem?.type ?? '',
  ...tableFields(there),
  bootRecord,
});

const differenceOf = (there: TablePartition, image: ImagePartition | null): string | null => {
  if (!image) return null;
  const differing = (['type', 'uuid'] as const).filter((field) => there[field] !== image[field]);
  if (differing.length === 0) return null;
  return `${image.name} keeps the ${differing.join(' and ')} that the disk's table has for it, the image's differ`;
};

/** Until there is a new table the present chain has to stay readable: its records may only lie where new ones go. */
const assertSameChain = (present: DiskTable, items: readonly Item[], places: readonly Placed[]): void => {
  if (!present.extended) return;
  const planned = places.flatMap(({ start, bootRecord }, index) => {
    if (bootRecord !== null) return [bootRecord];
    return items[index]?.partition ? [] : [start];
  });
  const there = present.partitions.flatMap(({ bootRecord }) => (bootRecord === null ? [] : [bootRecord]));
  if ([present.extended.start, ...there].every((at) => planned.includes(at))) return;
  throw refused(
    'leave partitions as they are',
    'the logical partitions of the disk lie elsewhere than planned',
  );
};

const elsewhere = (there: TablePartition, place: Placed | undefined): ImagingError =>
  new ImagingError(
    'OPTION_REFUSED',
    `Cannot keep partition ${there.number}: on the disk it has ${there.size} bytes from byte ${there.start}, planned are ${place?.size} from byte ${place?.start}`,
    {
      details: { partition: there.number, present: { start: there.start, size: there.size }, planned: place },
    },
  );

const tooSmall = (image: ImagePartition, there: TablePartition, target: DiskFacts): ImagingError =>
  new ImagingError(
    'TARGET_TOO_SMALL',
    `Cannot write ${image.name}: partition ${there.number} of ${target.name} has ${there.size} bytes, it needs ${image.size}`,
    { details: { neededBytes: image.size, availableBytes: there.size, partition: image.name } },
  );

const refused = (what: string, reason: string): ImagingError =>
  new ImagingError('OPTION_REFUSED', `Cannot ${what}: ${reason}`);
