import { hasCode } from '../../errors.ts';
import { type VolumeGroup, whyWhole } from './group.ts';
import { dashed, type MdaHeader, type PvLabel } from './on-disk.ts';
import { readVolume } from './read.ts';

/** A physical volume among those that are looked at, with the group that it belongs to. */
export interface Member {
  device: string;
  size: number;
  /** null where it cannot be read */
  label: PvLabel | null;
  group: VolumeGroup | null;
  /** its metadata areas that carry the newest metadata on it */
  headers: MdaHeader[];
  /** key of this volume in its group */
  key: string;
  /** why nothing in it can be told apart; null where it can */
  whole: string | null;
  /** members of the group that are among those looked at, by key; this one too */
  peers: Map<string, Member>;
}

/**
 * Read the physical volumes of a disk (or several) and find their groups. A group's metadata may lie on
 * another of its volumes only.
 */
export const findMembers = async (
  volumes: readonly { device: string; size: number }[],
): Promise<Map<string, Member>> => {
  const members: Member[] = [];
  for (const { device, size } of volumes) members.push(await readMember(device, size));
  const groups = members.flatMap(({ group }) => group ?? []);
  for (const member of members) join(member, groups, members);
  return new Map(members.map((member) => [member.device, member]));
};

const readMember = async (device: string, size: number): Promise<Member> => {
  const peers = new Map<string, Member>();
  const nothing = { device, size, label: null, group: null, headers: [], key: '', peers };
  try {
    const { label, group, headers } = await readVolume(device, size);
    return { ...nothing, label, group, headers, whole: null };
  } catch (error) {
    if (!hasCode(error, 'LAYOUT_UNSUPPORTED')) throw error;
    return { ...nothing, whole: error instanceof Error ? error.message : String(error) };
  }
};

/** Give a member its group, its place in it and its peers, or the reason why it has none. */
const join = (member: Member, groups: readonly VolumeGroup[], members: readonly Member[]): void => {
  const { label } = member;
  if (!label) return;
  const uuid = dashed(label.uuid);
  if (members.some((other) => other !== member && other.label?.uuid === label.uuid)) {
    member.whole = 'another volume has the same LVM UUID';
    return;
  }
  const own = groups.filter(({ physical }) => physical.some((pv) => pv.uuid === uuid));
  const newest = own.reduce<VolumeGroup | null>(
    (best, group) => (best && best.seqno >= group.seqno ? best : group),
    null,
  );
  const pv = newest?.physical.find((one) => one.uuid === uuid);
  if (!newest || !pv) {
    member.whole = 'it is a physical volume of LVM whose volume group is not known';
    return;
  }
  member.group = newest;
  member.key = pv.key;
  for (const one of newest.physical) {
    const peer = members.find((other) => other.label && dashed(other.label.uuid) === one.uuid);
    if (peer) member.peers.set(one.key, peer);
  }
  member.whole = whyWhole(newest);
  if (own.some(({ seqno, uuid: group }) => seqno !== newest.seqno || group !== newest.uuid)) {
    member.whole = `the physical volumes of ${newest.name} do not agree about it`;
  } else if (pv.start + pv.extents * newest.extentSize > member.size) {
    member.whole = `its extents reach beyond it`;
  }
};
