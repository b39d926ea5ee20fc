import { isImagingError } from '../../errors.ts';
import { totalLength, uniteExtents } from '../../filesystem/extents.ts';
import type { ContainedVolume, FilesystemFacts } from '../../protocol/index.ts';
import { roleOfVolume } from '../role.ts';
import { type Inspection, type Look, rawLook, type Volume } from '../volume.ts';
import {
  type LinearRun,
  type LogicalVolume,
  linearRuns,
  mapExtents,
  placesOn,
  sizeOf,
  type VolumeGroup,
} from './group.ts';
import type { Member } from './members.ts';
import { openRuns } from './node.ts';
import { floorsOf, smallestMember, whyFixed } from './shrink-plan.ts';

/** A logical volume that was looked into, or the reason why it could not be. */
export interface LookedAt {
  lv: LogicalVolume;
  runs: LinearRun[] | null;
  look: Look;
}

/**
 * A physical volume: its label and metadata as they are, and what the group's logical volumes use of it.
 * `inside` looks into a logical volume.
 */
export const inspectMember = async (
  volume: Volume,
  facts: FilesystemFacts,
  inspection: Inspection,
  inside: (volume: Volume) => Promise<Look>,
): Promise<Look> => {
  const member = inspection.members.get(volume.device);
  const group = member?.group;
  const pv = group?.physical.find(({ key }) => key === member?.key);
  if (!member?.label || !group || !pv || member.whole !== null) {
    return rawLook(volume, facts, member?.whole ?? 'it is a physical volume of LVM inside another volume');
  }
  const all = await lookOnce(group, member, inspection, inside);
  const { metadataAreas, bootAreas } = member.label;
  const own = [...metadataAreas, ...bootAreas].map(({ start, size }) => ({ offset: start, length: size }));
  const kept = all.flatMap(({ lv, runs, look }) =>
    runs !== null && look.method === 'used'
      ? mapExtents(runs, look.extents, pv.key)
      : placesOn(group, lv, pv),
  );
  const extents = uniteExtents([{ offset: 0, length: pv.start }, ...own, ...kept], volume.size);
  const here = all.filter(({ lv }) => placesOn(group, lv, pv).length > 0);
  const contains = here.flatMap(({ lv, look }) => [containedVolume(group, lv, look), ...look.contains]);
  return {
    filesystem: { ...facts, ...minimumOf(member, contains), usedBytes: totalLength(extents) },
    method: 'used',
    reason: '',
    extents,
    os: here.find(({ look }) => look.os)?.look.os ?? null,
    contains,
    dirty: all.some(({ look }) => look.dirty),
  };
};

/** What a smaller version of it would take, or why there can be none. */
const minimumOf = (
  { label, group, headers }: Member,
  contains: readonly ContainedVolume[],
): Pick<FilesystemFacts, 'minimumBytes' | 'minimumReason'> => {
  if (!label || !group) return { minimumBytes: null };
  const known = { label, group, headers };
  const fixed = whyFixed(known);
  if (fixed !== null) return { minimumBytes: null, minimumReason: fixed.slice(0, 400) };
  return { minimumBytes: smallestMember(known, floorsOf(contains)) };
};

const lookOnce = (
  group: VolumeGroup,
  member: Member,
  inspection: Inspection,
  inside: (volume: Volume) => Promise<Look>,
): Promise<LookedAt[]> => {
  const before = inspection.groups.get(group.uuid);
  if (before !== undefined) return before;
  const looking = lookAtAll(group, member.peers, inspection, inside);
  inspection.groups.set(group.uuid, looking);
  return looking;
};

const lookAtAll = async (
  group: VolumeGroup,
  members: ReadonlyMap<string, Member>,
  inspection: Inspection,
  inside: (volume: Volume) => Promise<Look>,
): Promise<LookedAt[]> => {
  const all: LookedAt[] = [];
  for (const lv of group.logical) {
    inspection.signal.throwIfAborted();
    const runs = linearRuns(group, lv);
    const why = typeof runs === 'string' ? runs : whyOutOfReach(runs, members);
    const look =
      typeof runs === 'string' || why !== null
        ? rawLook({ size: sizeOf(group, lv) }, null, why ?? '')
        : await lookAtOne(group, lv, runs, members, inspection, inside);
    // parts of other volumes are no volumes to anybody; the one that they make up says why
    if (why !== null && lv.status.includes('VISIBLE')) {
      inspection.warn(`${group.name}/${lv.name} is kept whole: ${why}`);
    }
    all.push({ lv, runs: typeof runs === 'string' ? null : runs, look });
  }
  return all;
};

const lookAtOne = async (
  group: VolumeGroup,
  lv: LogicalVolume,
  runs: readonly LinearRun[],
  members: ReadonlyMap<string, Member>,
  inspection: Inspection,
  inside: (volume: Volume) => Promise<Look>,
): Promise<Look> => {
  const size = sizeOf(group, lv);
  const name = `${group.name}/${lv.name}`;
  try {
    const { replay, signal } = inspection;
    await using node = await openRuns(runs, members, { writable: replay, signal });
    return await inside({ device: node.path, size, name, partition: false });
  } catch (error) {
    // the node alone: what can be looked into has an answer of its own to what it meets
    if (!isImagingError(error) || error.code !== 'TOOL_FAILED') throw error;
    inspection.warn(`${name} is kept whole: ${error.message}`);
    return rawLook({ size }, null, error.message);
  }
};

const whyOutOfReach = (runs: readonly LinearRun[], members: ReadonlyMap<string, Member>): string | null => {
  const outside = runs.some(({ key }) => !members.has(key));
  if (outside) return 'a part of it lies on a physical volume that is not captured with it';
  const beyond = runs.some(({ key, offset, length }) => offset + length > (members.get(key)?.size ?? 0));
  return beyond ? 'it reaches beyond its physical volume' : null;
};

const containedVolume = (group: VolumeGroup, lv: LogicalVolume, look: Look): ContainedVolume => ({
  kind: 'lvm',
  name: `${group.name}/${lv.name}`.slice(0, 256),
  uuid: lv.uuid,
  size: sizeOf(group, lv),
  role: roleOfVolume(look),
  filesystem: look.filesystem,
  method: look.method,
  reason: look.reason,
});
