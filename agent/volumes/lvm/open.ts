import type { ContainedVolume } from '../../protocol/index.ts';
import { linearRuns } from './group.ts';
import { type DeployedVolumes, memberOf } from './grow.ts';
import { openRuns } from './node.ts';

export interface OpenVolumes extends AsyncDisposable {
  /** nodes that can be written */
  volumes: { volume: ContainedVolume; device: string }[];
}

/**
 * Nodes for some of the logical volumes in a deployed physical volume, to change what is in them. One whose
 * parts are not all here, or not linear, has none. Dispose takes them away, with all that was written.
 *
 * @throws ImagingError FILESYSTEM_CHECK_FAILED, TOOL_FAILED
 */
export const openDeployed = async (
  deployed: DeployedVolumes,
  wanted: (volume: ContainedVolume) => boolean,
): Promise<OpenVolumes> => {
  await using opening = new AsyncDisposableStack();
  const volumes: OpenVolumes['volumes'] = [];
  const chosen = deployed.contains.filter((volume) => volume.kind === 'lvm' && wanted(volume));
  if (chosen.length > 0) {
    const { group, peers } = await memberOf(deployed);
    for (const volume of chosen) {
      const lv = group.logical.find(({ uuid }) => uuid === volume.uuid);
      const runs = lv && linearRuns(group, lv);
      if (!runs || typeof runs === 'string' || runs.some(({ key }) => !peers.has(key))) continue;
      const { signal } = deployed;
      const node = opening.use(await openRuns(runs, peers, { writable: true, signal }));
      volumes.push({ volume, device: node.path });
    }
  }
  const opened = opening.move();
  return { volumes, [Symbol.asyncDispose]: () => opened.disposeAsync() };
};
