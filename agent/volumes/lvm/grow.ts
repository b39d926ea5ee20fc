import { flushDevice } from '../../disk/device-io.ts';
import { ImagingError } from '../../errors.ts';
import { deviceSize } from '../../filesystem/device-size.ts';
import { driverFor } from '../../filesystem/index.ts';
import { probe } from '../../filesystem/probe.ts';
import type { ContainedVolume } from '../../protocol/index.ts';
import { type LinearRun, type LogicalVolume, linearRuns, sizeOf, type VolumeGroup } from './group.ts';
import { findMembers, type Member } from './members.ts';
import { openRuns } from './node.ts';
import { lvm } from './tools.ts';

export interface DeployedVolumes {
  /** node of the partition that holds the physical volume */
  device: string;
  /** nodes of all deployed partitions that hold physical volumes, this one too: a group may span them */
  nodes: readonly string[];
  /** the partition's `contains` of the manifest */
  contains: readonly ContainedVolume[];
  signal: AbortSignal;
}

/** What was proved of one volume, for the task's evidence. */
export interface VolumeProof {
  what: string;
  proof: string;
}

export interface GrownVolumes {
  proofs: VolumeProof[];
  /** why something did not grow; for the task's warnings */
  warning: string | null;
}

/**
 * Let a physical volume fill its partition, give all that is free on it to the logical volume that should have
 * it, grow that one's filesystem, and check everything: the group by lvm2, each filesystem by its own tool. Not
 * to be cancelled in the middle.
 *
 * @throws ImagingError TOOL_FAILED, FILESYSTEM_CHECK_FAILED
 */
export const growVolumes = async (deployed: DeployedVolumes): Promise<GrownVolumes> => {
  const { device, nodes } = deployed;
  const before = await memberOf(deployed);
  const missing = before.group.physical.find(({ key }) => !before.peers.has(key));
  if (missing) {
    // lvm2 changes nothing in a group that is not complete
    const proofs = await checkVolumes(deployed);
    return { proofs, warning: `${before.group.name} keeps its size: a part of it lies on another disk` };
  }
  await lvm(nodes, 'pvresize', [device]);
  await flushDevice(device);
  const { group, key, peers } = await memberOf(deployed);
  const chosen = chooseToGrow(group, deployed.contains, peers);
  const proofs: VolumeProof[] = [];
  if (chosen) {
    const name = safeName(group, chosen.lv);
    const free = freeExtents(group, key);
    if (free > 0) {
      await lvm(nodes, 'lvextend', ['--extents', '+100%PVS', name, device]);
      for (const node of nodes) await flushDevice(node);
    }
    const after = await memberOf(deployed);
    const lv = after.group.logical.find(({ uuid }) => uuid === chosen.lv.uuid);
    const runs = lv ? linearRuns(after.group, lv) : 'gone';
    if (!lv || typeof runs === 'string' || freeExtents(after.group, key) > 0) {
      throw new ImagingError('FILESYSTEM_CHECK_FAILED', `Cannot grow ${name}: lvextend left it otherwise`);
    }
    await growFilesystem(runs, after.peers, chosen.filesystem);
    for (const node of nodes) await flushDevice(node);
    proofs.push({
      what: `${name} fills its volume group`,
      proof: `${sizeOf(after.group, lv)} bytes, ${chosen.filesystem} grown, its own check is clean`,
    });
  }
  const warning = chosen ? null : `nothing in ${group.name} can grow: the room is free in the volume group`;
  return { proofs: [...proofs, ...(await checkVolumes(deployed))], warning };
};

/**
 * That a deployed physical volume is one to lvm2, and every filesystem in it is sound; what was raw in the image
 * has no check. Read-only.
 *
 * @throws ImagingError TOOL_FAILED, FILESYSTEM_CHECK_FAILED, FILESYSTEM_DIRTY
 */
export const checkVolumes = async (deployed: DeployedVolumes): Promise<VolumeProof[]> => {
  const { nodes, contains, signal } = deployed;
  const { group, peers } = await memberOf(deployed);
  // where a part of the group was not deployed, lvm2 has nothing complete to check
  const whole = group.physical.every(({ key }) => peers.has(key));
  const proofs: VolumeProof[] = [];
  if (whole) {
    await lvm(nodes, 'vgck', [safeName(group)]);
    proofs.push({
      what: `volume group ${group.name} is sound`,
      proof: `vgck is content with ${group.logical.length} volumes, metadata number ${group.seqno}`,
    });
  }
  for (const { uuid, method, filesystem } of contains) {
    const lv = group.logical.find((one) => one.uuid === uuid);
    const driver = driverFor(filesystem?.type ?? '');
    const runs = lv && linearRuns(group, lv);
    if (!lv || !driver || method !== 'used' || typeof runs === 'string' || !runs) continue;
    if (runs.some(({ key }) => !peers.has(key))) continue;
    await using node = await openRuns(runs, peers, { writable: false, signal });
    await driver.check(node.path, signal);
    proofs.push({
      what: `${group.name}/${lv.name} is sound`,
      proof: `the read-only check of ${filesystem?.type} is clean`,
    });
  }
  return proofs;
};

/**
 * The volume group on a deployed physical volume, as its metadata says now.
 *
 * @throws ImagingError FILESYSTEM_CHECK_FAILED
 */
export const memberOf = async ({
  device,
  nodes,
}: Pick<DeployedVolumes, 'device' | 'nodes'>): Promise<{
  group: VolumeGroup;
  key: string;
  peers: Map<string, Member>;
}> => {
  const volumes: { device: string; size: number }[] = [];
  const { signal } = new AbortController();
  for (const node of nodes) volumes.push({ device: node, size: await deviceSize(node, signal) });
  const member = (await findMembers(volumes)).get(device);
  if (member?.group && member.whole === null)
    return { group: member.group, key: member.key, peers: member.peers };
  throw new ImagingError(
    'FILESYSTEM_CHECK_FAILED',
    `Cannot use the LVM on ${device}: ${member?.whole ?? 'there is none'}`,
  );
};

const growFilesystem = async (
  runs: readonly LinearRun[],
  devices: ReadonlyMap<string, Member>,
  type: string,
): Promise<void> => {
  // a resizer that is killed leaves a filesystem between two sizes
  const { signal } = new AbortController();
  await using node = await openRuns(runs, devices, { writable: true, signal });
  const found = await probe(node.path, { signal });
  const driver = driverFor(type);
  if (found.type !== type || !driver?.grow) {
    throw new ImagingError(
      'FILESYSTEM_CHECK_FAILED',
      `Cannot grow ${node.path}: it holds ${found.type || 'nothing'}`,
    );
  }
  await driver.grow(node.path, signal);
  await flushDevice(node.path);
};

/** The largest system volume that can grow, else the largest with data. */
const chooseToGrow = (
  group: VolumeGroup,
  contains: readonly ContainedVolume[],
  peers: ReadonlyMap<string, Member>,
): { lv: LogicalVolume; filesystem: string } | null => {
  const candidates = contains.flatMap(({ uuid, role, method, filesystem }) => {
    const lv = group.logical.find((one) => one.uuid === uuid);
    const runs = lv && linearRuns(group, lv);
    if (!lv || !runs || typeof runs === 'string' || runs.some(({ key }) => !peers.has(key))) return [];
    if (method !== 'used' || !filesystem || !driverFor(filesystem.type)?.growable) return [];
    return [{ lv, filesystem: filesystem.type, rank: role === 'os' ? 1 : 0, size: sizeOf(group, lv) }];
  });
  return candidates.toSorted((a, b) => b.rank - a.rank || b.size - a.size)[0] ?? null;
};

const freeExtents = (group: VolumeGroup, key: string): number => {
  const total = group.physical.find((pv) => pv.key === key)?.extents ?? 0;
  const taken = group.logical
    .flatMap(({ segments }) => segments)
    .reduce((sum, { areas, extents }) => {
      const here = areas.filter((area) => area.key === key).length;
      return sum + (here * extents) / Math.max(1, areas.length);
    }, 0);
  return total - taken;
};

/** Names become arguments of lvm2: only such that are names to it. */
const safeName = (group: VolumeGroup, lv?: LogicalVolume): string => {
  const names = [group.name, ...(lv ? [lv.name] : [])];
  if (names.every((name) => /^[\w+.][\w+.-]*$/.test(name))) return names.join('/');
  throw new ImagingError(
    'LAYOUT_UNSUPPORTED',
    `Cannot use the name ${names.join('/')}: LVM allows no such name`,
  );
};
