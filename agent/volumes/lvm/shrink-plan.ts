import { giverOf, leastStep, sizeAt } from '../../disk/give-space.ts';
import { ImagingError } from '../../errors.ts';
import { shrinkExt } from '../../filesystem/shrink-ext.ts';
import type { ByteRange, ContainedVolume } from '../../protocol/index.ts';
import { type LogicalVolume, linearRuns, sizeOf, type VolumeGroup, whyWhole } from './group.ts';
import { dashed, type MdaHeader, type PvLabel } from './on-disk.ts';

/** A physical volume whose group is known, as `readVolume` found it. */
export interface KnownMember {
  label: PvLabel;
  group: VolumeGroup;
  headers: readonly MdaHeader[];
}

/** Bytes that a logical volume needs, by its UUID; one that is not named keeps its size. */
export type Floors = ReadonlyMap<string, number>;

/** A physical volume made smaller: every logical volume in one piece, one behind the other. Bytes. */
export interface MemberPlan {
  size: number;
  /** number of extents, used or free */
  extents: number;
  /** in the order of the label */
  metadataAreas: ByteRange[];
  volumes: PlannedVolume[];
}

export interface PlannedVolume {
  /** as it was */
  lv: LogicalVolume;
  /** on the physical volume */
  offset: number;
  size: number;
}

/** lvm2 uses no physical volume below this (lvm.conf(5), devices/pv_min_size) */
const LEAST = 2 * 1024 * 1024;
/** metadata at the end of the volume begins at a page, as lvm2 puts it (lib/format_text/format-text.c) */
const PAGE = 4096;

/**
 * Why a physical volume keeps its size, to go on with after "and"; null where it can be made smaller: it is all
 * of its group, every logical volume is linear, and there is nothing on it that is not understood.
 */
export const whyFixed = ({ label, group, headers }: KnownMember): string | null => {
  const { name, physical, logical, status } = group;
  const [pv] = physical;
  if (!pv || physical.length !== 1) return `its volume group ${name} has ${physical.length} physical volumes`;
  if (pv.uuid !== dashed(label.uuid)) return `the metadata on it is another volume's`;
  const whole = whyWhole(group);
  if (whole !== null) return whole;
  if (!status.includes('RESIZEABLE')) return `its volume group ${name} is marked as not to be resized`;
  for (const lv of logical) {
    const runs = linearRuns(group, lv);
    if (typeof runs === 'string') return `${name}/${lv.name} is not linear (${runs})`;
    const [extra] = lv.segments.flatMap(({ extras }) => extras);
    if (extra !== undefined) return `${name}/${lv.name} has what is not known here (${extra})`;
  }
  if (overlap(group)) return `two volumes of ${name} claim the same place`;
  if (headers.length !== label.metadataAreas.length) return 'not all copies of its metadata are sound';
  const end = pv.start + pv.extents * group.extentSize;
  const [first, ...others] = label.metadataAreas;
  const [data, ...more] = label.dataAreas;
  const usual =
    (first === undefined || first.start + first.size <= pv.start || first.start >= end) &&
    others.every(({ start }) => start >= end) &&
    label.bootAreas.every(({ start, size }) => start + size <= pv.start) &&
    data?.start === pv.start &&
    data.size === 0 &&
    more.length === 0;
  return usual ? null : 'what it keeps beside its extents lies in unusual places';
};

const overlap = ({ logical }: VolumeGroup): boolean => {
  const places = logical
    .flatMap(({ segments }) => segments)
    .map(({ areas, extents }) => ({ from: areas[0]?.extent ?? 0, extents }))
    .sort((a, b) => a.from - b.from);
  return places.some(({ from }, at) => {
    const before = places[at - 1];
    return before !== undefined && before.from + before.extents > from;
  });
};

/**
 * What the volumes need that can be made smaller: those with ext, which needs neither root nor a mount for it.
 * `contains` is the partition's of the manifest.
 */
export const floorsOf = (contains: readonly ContainedVolume[]): Map<string, number> =>
  new Map(
    contains.flatMap(({ kind, uuid, method, filesystem }) => {
      const shrinkable =
        kind === 'lvm' && method === 'used' && shrinkExt.types.includes(filesystem?.type ?? '');
      const minimum = filesystem?.minimumBytes ?? null;
      return shrinkable && minimum !== null ? [[uuid, minimum] as const] : [];
    }),
  );

/** Bytes of the smallest physical volume that `planMember` finds a plan for. */
export const smallestMember = (member: KnownMember, floors: Floors): number => {
  const { start, extentSize } = dataOf(member);
  const extents = giversOf(member, floors).reduce((sum, { minimum }) => sum + minimum, 0) / extentSize;
  const data = start + Math.max(1, extents) * extentSize;
  const behind = areasBehind(member).reduce((sum, { size }) => sum + pageUp(size), 0);
  return Math.max(LEAST, behind === 0 ? data : pageUp(data) + behind);
};

/**
 * Where everything goes on a physical volume of `size` bytes. Volumes keep their order; where the free extents do
 * not suffice, those that can give space, in proportion to what each can: down to some slack first, below that
 * only as far as needed. Of a member without a reason in `whyFixed`. Pure.
 *
 * @throws ImagingError TARGET_TOO_SMALL (`neededBytes`, `availableBytes` in details)
 */
export const planMember = (member: KnownMember, floors: Floors, size: number): MemberPlan => {
  const { start, extentSize, extents: before } = dataOf(member);
  const metadataAreas = placeAreas(member, size);
  const behind = areasBehind(member).map((area) => member.label.metadataAreas.indexOf(area));
  const end = Math.min(size, ...behind.map((at) => metadataAreas[at]?.start ?? 0));
  const extents = Math.min(before, Math.floor((end - start) / extentSize));
  const givers = giversOf(member, floors);
  const sizesAt = (step: number): number[] =>
    givers.map((giver) => sizeAt(giver, step, (bytes) => Math.floor(bytes / extentSize) * extentSize));
  const spare = (sizes: readonly number[]): number =>
    extents * extentSize - sizes.reduce((sum, one) => sum + one, 0);
  const step = leastStep((at) => spare(sizesAt(at)) >= 0);
  if (step === null || size < smallestMember(member, floors)) {
    throw tooSmall(member, size, smallestMember(member, floors));
  }
  const sizes =
    step === 0
      ? sizesAt(0)
      : giveBack(
          givers.map(({ size: own }) => own),
          sizesAt(step),
          spare,
        );
  let offset = start;
  const volumes = inOrder(member.group).map((lv, at) => {
    const place = { lv, offset, size: sizes[at] ?? 0 };
    offset += place.size;
    return place;
  });
  return { size, extents, metadataAreas, volumes };
};

/** What rounding left goes back to who gave most. */
const giveBack = (
  before: readonly number[],
  now: readonly number[],
  spare: (sizes: readonly number[]) => number,
): number[] => {
  const sizes = [...now];
  const gifts = before.map((size, at) => ({ at, gift: size - (now[at] ?? 0) }));
  for (const { at, gift } of gifts.sort((a, b) => b.gift - a.gift)) {
    sizes[at] = (now[at] ?? 0) + Math.min(gift, spare(sizes));
  }
  return sizes;
};

const giversOf = ({ group }: KnownMember, floors: Floors) => {
  const roundUp = (bytes: number): number => Math.ceil(bytes / group.extentSize) * group.extentSize;
  return inOrder(group).map((lv) => {
    // somebody made it read-only: nobody is to change what is in it
    const minimum = lv.status.includes('WRITE') ? (floors.get(lv.uuid) ?? null) : null;
    return giverOf(sizeOf(group, lv), minimum, roundUp);
  });
};

/** By the place where they begin: most then stay where they are. */
const inOrder = ({ logical }: VolumeGroup): LogicalVolume[] =>
  logical.toSorted((a, b) => beginOf(a) - beginOf(b));

const beginOf = ({ segments }: LogicalVolume): number => segments[0]?.areas[0]?.extent ?? 0;

const dataOf = ({ group }: KnownMember) => {
  const [pv] = group.physical;
  return { start: pv?.start ?? 0, extents: pv?.extents ?? 0, extentSize: group.extentSize };
};

const areasBehind = (member: KnownMember): ByteRange[] =>
  member.label.metadataAreas.filter(({ start }) => start >= dataOf(member).start);

/** Areas behind the extents move with the end, in their order; those before them stay. */
const placeAreas = (member: KnownMember, size: number): ByteRange[] => {
  const places = new Map<ByteRange, ByteRange>();
  let end = size;
  for (const area of areasBehind(member).toSorted((a, b) => b.start - a.start)) {
    end = Math.floor((end - area.size) / PAGE) * PAGE;
    places.set(area, { start: end, size: area.size });
  }
  return member.label.metadataAreas.map((area) => places.get(area) ?? area);
};

const pageUp = (bytes: number): number => Math.ceil(bytes / PAGE) * PAGE;

const tooSmall = ({ group }: KnownMember, availableBytes: number, neededBytes: number): ImagingError =>
  new ImagingError(
    'TARGET_TOO_SMALL',
    `Cannot make the volume group ${group.name} smaller: it needs ${neededBytes} bytes, ${availableBytes} are left for it`,
    { details: { neededBytes, availableBytes } },
  );
