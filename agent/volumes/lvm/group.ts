import { ImagingError } from '../../errors.ts';
import type { Extent } from '../../image/extent.ts';
import { type ConfigSection, type ConfigValue, parseConfig } from './config.ts';

/** A volume group as its metadata describes it. Bytes, unless a name says extents. */
export interface VolumeGroup {
  name: string;
  /** with dashes */
  uuid: string;
  seqno: number;
  extentSize: number;
  status: string[];
  physical: PhysicalVolume[];
  logical: LogicalVolume[];
}

export interface PhysicalVolume {
  /** `pv0`: what segments call it */
  key: string;
  uuid: string;
  status: string[];
  /** where its first extent begins */
  start: number;
  extents: number;
}

export interface LogicalVolume {
  name: string;
  uuid: string;
  status: string[];
  segments: Segment[];
}

export interface Segment {
  /** extents of the logical volume */
  start: number;
  extents: number;
  /** as lvm2 writes it; `striped` with one stripe is linear */
  type: string;
  /** places on physical volumes, by key */
  areas: { key: string; extent: number }[];
  /** every text in it that is no physical volume: names of other logical volumes, among others */
  references: string[];
  /** names of what is in it beyond place and kind: tags, flags, what a later lvm2 may bring */
  extras: string[];
}

const SECTOR = 512;
/** refused beyond: lvm2's own limits are lower, and hostile metadata must cost no memory */
const MAX_EXTENTS = 2 ** 32;

/**
 * Segment types whose places are all in `areas`, or which have none on a physical volume but stand on other
 * logical volumes (lvm2 2.03, lib/metadata/segtype.h).
 */
const knownTypes =
  /^(striped|linear|error|zero|mirror|snapshot|thin|thin-pool|cache|cache-pool|writecache|integrity|vdo|vdo-pool|raid[01456]\w*|raid10\w*)(\+\S*)?$/;

/**
 * @throws ImagingError LAYOUT_UNSUPPORTED: not the metadata of one group, or it contradicts itself
 */
export const parseGroup = (text: string): VolumeGroup => {
  const root = parseConfig(text);
  const groups = [...root].filter(
    (entry): entry is [string, ConfigSection] => entry[1] instanceof Map && entry[1].has('extent_size'),
  );
  const [found] = groups;
  if (!found || groups.length !== 1) throw invalid(`it describes ${groups.length} groups`);
  const [name, section] = found;
  const physical = sections(section, 'physical_volumes').map(([key, pv]) => parsePhysical(key, pv));
  const keys = new Set(physical.map(({ key }) => key));
  const group = {
    name,
    uuid: idOf(section),
    seqno: numberOf(section, 'seqno'),
    extentSize: numberOf(section, 'extent_size') * SECTOR,
    status: listOf(section, 'status'),
    physical,
    logical: sections(section, 'logical_volumes').map(([lvName, lv]) => parseLogical(lvName, lv, keys)),
  };
  assertSound(group);
  return group;
};

const parsePhysical = (key: string, section: ConfigSection): PhysicalVolume => ({
  key,
  uuid: idOf(section),
  status: listOf(section, 'status'),
  start: numberOf(section, 'pe_start') * SECTOR,
  extents: numberOf(section, 'pe_count'),
});

const parseLogical = (name: string, section: ConfigSection, keys: ReadonlySet<string>): LogicalVolume => ({
  name,
  uuid: idOf(section),
  status: listOf(section, 'status'),
  segments: [...section]
    .filter(
      (entry): entry is [string, ConfigSection] => entry[1] instanceof Map && /^segment\d+$/.test(entry[0]),
    )
    .map(([, segment]) => parseSegment(segment, keys))
    .sort((a, b) => a.start - b.start),
});

/** All that lvm2 writes of a segment of a linear volume (lib/format_text/export.c, lib/striped/striped.c). */
const linearEntries = ['start_extent', 'extent_count', 'type', 'stripe_count', 'stripes'];

const parseSegment = (section: ConfigSection, keys: ReadonlySet<string>): Segment => {
  const areas: Segment['areas'] = [];
  const references: string[] = [];
  for (const [name, value] of section) {
    if (['type', 'status', 'flags', 'tags'].includes(name)) continue;
    const list: ConfigValue[] = Array.isArray(value) ? value : value instanceof Map ? [] : [value];
    for (const [at, item] of list.entries()) {
      if (typeof item !== 'string') continue;
      const extent = list[at + 1];
      if (keys.has(item) && typeof extent === 'number') areas.push({ key: item, extent });
      else references.push(item);
    }
  }
  return {
    start: numberOf(section, 'start_extent'),
    extents: numberOf(section, 'extent_count'),
    type: textOf(section, 'type'),
    areas,
    references,
    extras: [...section.keys()].filter((name) => !linearEntries.includes(name)),
  };
};

/** What every reader below relies on. */
const assertSound = (group: VolumeGroup): void => {
  const { extentSize, physical, logical } = group;
  if (extentSize < SECTOR) throw invalid('its extents have no size');
  const counts = new Map(physical.map(({ key, extents }) => [key, extents]));
  for (const { extents, start } of physical) {
    if (extents > MAX_EXTENTS || !Number.isSafeInteger(start + extents * extentSize)) {
      throw invalid('a physical volume is larger than any disk');
    }
  }
  for (const { name, segments } of logical) {
    let next = 0;
    for (const { start, extents, areas } of segments) {
      if (start !== next || extents < 1) throw invalid(`the segments of ${name} do not follow each other`);
      next = start + extents;
      // an area of a striped segment is shorter than the segment
      const shortest = areas.length > 1 ? 1 : extents;
      if (areas.some(({ key, extent }) => extent < 0 || extent + shortest > (counts.get(key) ?? 0))) {
        throw invalid(`${name} reaches beyond its physical volume`);
      }
    }
    if (!Number.isSafeInteger(next * extentSize)) throw invalid(`${name} is larger than any disk`);
  }
};

/** Why nothing of this group can be told apart, so that its physical volumes are kept whole; or null. */
export const whyWhole = (group: VolumeGroup): string | null => {
  const { status, physical, logical } = group;
  if (status.includes('EXPORTED')) return `volume group ${group.name} is exported`;
  if (status.includes('CLUSTERED') || status.includes('SHARED'))
    return `volume group ${group.name} is shared`;
  if (physical.some((pv) => pv.status.includes('MISSING'))) {
    return `volume group ${group.name} has lost a physical volume`;
  }
  for (const lv of logical) {
    const strange = lv.segments.find(({ type }) => !knownTypes.test(type));
    if (strange) return `${group.name}/${lv.name} is of an unknown kind (${strange.type.slice(0, 40)})`;
  }
  return null;
};

/** One run of a linear logical volume: where it lies on a physical volume. */
export interface LinearRun {
  key: string;
  /** bytes on the physical volume */
  offset: number;
  /** bytes on the logical volume */
  start: number;
  length: number;
}

/** A linear logical volume as the runs that it consists of, or why it is none. */
export const linearRuns = (group: VolumeGroup, lv: LogicalVolume): LinearRun[] | string => {
  const other = lv.segments.find(({ type, areas }) => !isLinear(type) || areas.length !== 1);
  if (other) return isLinear(other.type) ? `${other.areas.length} stripes` : `of type ${other.type}`;
  if (lv.segments.length === 0) return 'without segments';
  const user = group.logical.find(({ segments }) =>
    segments.some(({ references }) => references.includes(lv.name)),
  );
  if (user) return `part of ${user.name} (${user.segments[0]?.type ?? 'unknown'})`;
  if (!lv.status.includes('VISIBLE')) return 'a part of another volume';
  if (lv.status.includes('LOCKED') || lv.status.includes('PVMOVE')) return 'being moved';
  const starts = new Map(group.physical.map(({ key, start }) => [key, start]));
  return lv.segments.map(({ start, extents, areas: [area] }) => ({
    key: area?.key ?? '',
    offset: (starts.get(area?.key ?? '') ?? 0) + (area?.extent ?? 0) * group.extentSize,
    start: start * group.extentSize,
    length: extents * group.extentSize,
  }));
};

const isLinear = (type: string): boolean => type === 'striped' || type === 'linear';

/** Every place of a logical volume on one physical volume, whatever its kind; rather too much than too little. */
export const placesOn = (group: VolumeGroup, lv: LogicalVolume, pv: PhysicalVolume): Extent[] =>
  lv.segments.flatMap(({ extents, areas }) =>
    areas
      .filter(({ key }) => key === pv.key)
      .map(({ extent }) => ({
        offset: pv.start + extent * group.extentSize,
        length: Math.min(extents, pv.extents - extent) * group.extentSize,
      })),
  );

/** Extents of a logical volume as they lie on one physical volume. */
export const mapExtents = (runs: readonly LinearRun[], extents: readonly Extent[], key: string): Extent[] => {
  const mapped: Extent[] = [];
  for (const run of runs) {
    if (run.key !== key) continue;
    for (const { offset, length } of extents) {
      const from = Math.max(offset, run.start);
      const to = Math.min(offset + length, run.start + run.length);
      if (to > from) mapped.push({ offset: run.offset + from - run.start, length: to - from });
    }
  }
  return mapped;
};

/** The other way: the parts of a logical volume that these extents of its physical volume are. */
export const runsWithin = (runs: readonly LinearRun[], extents: readonly Extent[]): LinearRun[] =>
  runs.flatMap((run) =>
    extents.flatMap(({ offset, length }) => {
      const from = Math.max(offset, run.offset);
      const to = Math.min(offset + length, run.offset + run.length);
      if (to <= from) return [];
      return [{ key: run.key, offset: from, start: run.start + from - run.offset, length: to - from }];
    }),
  );

export const sizeOf = (group: VolumeGroup, lv: LogicalVolume): number =>
  lv.segments.reduce((sum, { extents }) => sum + extents, 0) * group.extentSize;

const sections = (section: ConfigSection, name: string): [string, ConfigSection][] => {
  const found = section.get(name);
  if (found === undefined) return [];
  if (!(found instanceof Map)) throw invalid(`${name} is no section`);
  return [...found].map(([key, value]) => {
    if (value instanceof Map) return [key, value];
    throw invalid(`${name}/${key} is no section`);
  });
};

const textOf = (section: ConfigSection, name: string): string => {
  const value = section.get(name);
  if (typeof value === 'string' && value.length <= 128) return value;
  throw invalid(`${name} is missing`);
};

const idOf = (section: ConfigSection): string => {
  const id = textOf(section, 'id');
  if (/^[0-9A-Za-z-]{38}$/.test(id)) return id;
  throw invalid(`"${id}" is no UUID`);
};

const numberOf = (section: ConfigSection, name: string): number => {
  const value = section.get(name);
  if (typeof value === 'number' && value >= 0) return value;
  throw invalid(`${name} is missing`);
};

/** lvm2 writes a single flag without brackets where it is alone in some versions */
const listOf = (section: ConfigSection, name: string): string[] => {
  const value = section.get(name);
  if (typeof value === 'string') return [value];
  return Array.isArray(value) ? value.filter((item) => typeof item === 'string') : [];
};

const invalid = (reason: string): ImagingError =>
  new ImagingError('LAYOUT_UNSUPPORTED', `Cannot use the LVM metadata: ${reason}`);
