import { rename, rm, truncate } from 'node:fs/promises';
import { readAt, writeAt } from '../../../agent/disk/device-io.ts';
import { ImagingError, isImagingError } from '../../../agent/errors.ts';
import { ext } from '../../../agent/filesystem/ext.ts';
import { totalLength, uniteExtents } from '../../../agent/filesystem/extents.ts';
import type { FilesystemUsage } from '../../../agent/filesystem/filesystem.ts';
import { measureExt, shrinkExt } from '../../../agent/filesystem/shrink-ext.ts';
import type { ContainedVolume } from '../../../agent/protocol/index.ts';
import {
  type LinearRun,
  type LogicalVolume,
  linearRuns,
  runsWithin,
  sizeOf,
} from '../../../agent/volumes/lvm/group.ts';
import { SECTOR } from '../../../agent/volumes/lvm/on-disk.ts';
import { readVolume } from '../../../agent/volumes/lvm/read.ts';
import { encodeMember } from '../../../agent/volumes/lvm/shrink-encode.ts';
import {
  type Floors,
  floorsOf,
  type KnownMember,
  type MemberPlan,
  type PlannedVolume,
  planMember,
  smallestMember,
  whyFixed,
} from '../../../agent/volumes/lvm/shrink-plan.ts';
import { copyPieces } from './copy-pieces.ts';
import type { Content, Made } from './shrink-partition.ts';

/**
 * A physical volume of LVM made smaller. Every logical volume whose filesystem gives space is taken out into a file
 * of its own and made smaller there; then label, metadata and all volumes are put together anew, packed to the
 * front, and take the place of `file`. Needs no device-mapper, no lvm2 and no root.
 *
 * @throws ImagingError TARGET_TOO_SMALL, LAYOUT_UNSUPPORTED (not a group that `whyFixed` agrees with),
 *   FILESYSTEM_CHECK_FAILED, TOOL_FAILED …
 */
export const shrinkGroup = async (content: Content): Promise<Made> => {
  const { partition, file, size, signal } = content;
  const { member, text } = await memberIn(file, partition.size);
  const { plan, taken } = await settle(content, member);
  const start = member.group.physical[0]?.start ?? 0;
  const target = { file: `${file}.new`, size };
  const areas = plan.metadataAreas.map((area) => ({ offset: area.start, length: area.size }));

  // volumes that keep their size first: the old content can go then
  const kept = plan.volumes.filter((place) => !isSmaller(member, place));
  let pieces = kept.flatMap(({ lv, offset }) =>
    runsWithin(runsOf(member, lv), content.extents).map((run) => ({
      from: run.offset,
      to: offset + run.start,
      length: run.length,
    })),
  );
  // label and metadata, which are changed there
  pieces.push({ from: 0, to: 0, length: start });
  await copyPieces(file, target, pieces, signal);
  await rm(file);

  const smaller = new Map<string, FilesystemUsage>();
  for (const place of plan.volumes.filter((one) => isSmaller(member, one))) {
    const { uuid } = place.lv;
    const volume = taken.get(uuid) ?? '';
    const usage = await shrinkVolume(content, place, volume);
    smaller.set(uuid, usage);
    const moved = usage.extents.map(({ offset, length }) => ({
      from: offset,
      to: place.offset + offset,
      length,
    }));
    await copyPieces(volume, target, moved, signal);
    pieces = pieces.concat(moved);
    await rm(volume);
  }

  const { sector } = member.label;
  const label = await readAt(target.file, sector * SECTOR, SECTOR);
  await writeAt(target.file, encodeMember(member, text, label, plan));
  const made = await memberIn(target.file, size);
  requirePlan(made.member, plan);
  await rename(target.file, file);
  const contains = partition.contains.map((volume) => withUsage(volume, plan, smaller));
  const minimumBytes = smallestMember(made.member, floorsOf(contains));
  const used = pieces.map(({ to, length }) => ({ offset: to, length }));
  return { extents: uniteExtents(areas.concat(used), size), minimumBytes, contains };
};

/**
 * The plan, once every volume that it makes smaller has been measured by its filesystem's own tool; those lie in
 * files of their own then, by UUID: what was recorded at capture may be another version's estimate. Nor is
 * anything refused by an estimate.
 */
const settle = async (
  content: Content,
  member: KnownMember,
): Promise<{ plan: MemberPlan; taken: Map<string, string> }> => {
  const floors = floorsOf(content.partition.contains);
  const taken = new Map<string, string>();
  for (;;) {
    const plan = planOrRefusal(member, floors, content.size);
    const refused = plan instanceof ImagingError;
    const next = refused
      ? member.group.logical.find(({ uuid }) => floors.has(uuid) && !taken.has(uuid))
      : plan.volumes.find((place) => isSmaller(member, place) && !taken.has(place.lv.uuid))?.lv;
    if (next) {
      const { file, bytes } = await measure(content, member, next);
      taken.set(next.uuid, file);
      if (bytes > 0) floors.set(next.uuid, bytes);
    } else if (refused) throw plan;
    else return { plan, taken };
  }
};

const planOrRefusal = (member: KnownMember, floors: Floors, size: number): MemberPlan | ImagingError => {
  try {
    return planMember(member, floors, size);
  } catch (error) {
    if (isImagingError(error) && error.code === 'TARGET_TOO_SMALL') return error;
    throw error;
  }
};

/** A volume in a file of its own, and what its filesystem needs; 0 where its tool does not tell. */
const measure = async (
  { partition, file: whole, extents, onStep, signal }: Content,
  member: KnownMember,
  lv: LogicalVolume,
): Promise<{ file: string; bytes: number }> => {
  onStep(`${partition.name} (${member.group.name}/${lv.name}): checking`);
  const file = `${whole}.${lv.uuid}`;
  const pieces = runsWithin(runsOf(member, lv), extents).map((run) => ({
    from: run.offset,
    to: run.start,
    length: run.length,
  }));
  await copyPieces(whole, { file, size: sizeOf(member.group, lv) }, pieces, signal);
  return { file, bytes: await measureExt(file, signal) };
};

const shrinkVolume = async (
  { partition, onStep, signal }: Content,
  { lv, size }: PlannedVolume,
  file: string,
): Promise<FilesystemUsage> => {
  await shrinkExt.shrink(file, size, {
    signal,
    onStep: (text) => onStep(`${partition.name} (${lv.name}): ${text}`),
  });
  await truncate(file, size);
  // as a capture would look at it: its own check, then its map
  await ext.check(file, signal);
  return await ext.usage(file, size, signal);
};

/** @throws ImagingError LAYOUT_UNSUPPORTED */
const memberIn = async (file: string, size: number): Promise<{ member: KnownMember; text: string }> => {
  const { label, group, headers, text } = await readVolume(file, size);
  const why = group ? whyFixed({ label, group, headers }) : 'its volume group is not known';
  if (group && why === null) return { member: { label, group, headers }, text };
  throw new ImagingError('LAYOUT_UNSUPPORTED', `Cannot make the physical volume of LVM smaller: ${why}`);
};

/** Of this volume as it lies there. */
const runsOf = ({ group }: KnownMember, { uuid }: LogicalVolume): LinearRun[] => {
  const lv = group.logical.find((one) => one.uuid === uuid);
  const runs = lv && linearRuns(group, lv);
  if (runs && typeof runs !== 'string') return runs;
  throw new ImagingError('INTERNAL', `Cannot shrink ${group.name}: ${uuid} is ${runs ?? 'gone'}`);
};

const isSmaller = ({ group }: KnownMember, { lv, size }: PlannedVolume): boolean => size < sizeOf(group, lv);

/** What was written, read again as any reader would. */
const requirePlan = (made: KnownMember, plan: MemberPlan): void => {
  for (const { lv, offset, size } of plan.volumes) {
    const [run, ...more] = runsOf(made, lv);
    if (run?.offset === offset && run.length === size && more.length === 0) continue;
    throw new ImagingError('INTERNAL', `Cannot shrink ${made.group.name}: ${lv.name} lies elsewhere`);
  }
};

const withUsage = (
  volume: ContainedVolume,
  plan: MemberPlan,
  smaller: ReadonlyMap<string, FilesystemUsage>,
): ContainedVolume => {
  const usage = volume.kind === 'lvm' ? smaller.get(volume.uuid) : undefined;
  const place = plan.volumes.find(({ lv }) => lv.uuid === volume.uuid);
  if (!usage || !place || !volume.filesystem) return volume;
  const { extents, minimumBytes } = usage;
  const filesystem = { ...volume.filesystem, minimumBytes, usedBytes: totalLength(extents) };
  return { ...volume, size: place.size, filesystem };
};
