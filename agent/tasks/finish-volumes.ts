import type { InstalledSystem } from '../os/identity.ts';
import type { ImagePartition, Plan } from '../protocol/index.ts';
import { checkVolumes, type DeployedVolumes, growVolumes } from '../volumes/lvm/grow.ts';
import { openDeployed } from '../volumes/lvm/open.ts';
import type { TaskContext } from './context.ts';
import type { FetchedImage } from './deploy-fetch.ts';

/** After all partitions are there, since a volume group may span them: LVM grown where its partition is, and checked. */
export const finishVolumes = async (
  plan: Plan,
  nodes: ReadonlyMap<string, string>,
  image: FetchedImage,
  context: TaskContext,
): Promise<void> => {
  for (const { name, size, grow, deployed } of physicalVolumes(plan, nodes, image, context)) {
    const message = `${name} LVM${grow ? ` to ${size} bytes` : ''}`;
    context.step(grow ? 'grow' : 'check', {
      message,
      ...(grow ? { uninterruptible: `growing the volumes in ${name}` } : {}),
    });
    const { proofs, warning } = grow
      ? await growVolumes(deployed)
      : { proofs: await checkVolumes(deployed), warning: null };
    for (const { what, proof } of proofs) context.prove(what, proof);
    if (warning) context.warn(warning);
    context.signal.throwIfAborted();
  }
};

export interface VolumeSystems extends AsyncDisposable {
  systems: InstalledSystem[];
}

/** Operating systems in logical volumes, on nodes that can be written until they are disposed of. */
export const openSystems = async (
  plan: Plan,
  nodes: ReadonlyMap<string, string>,
  image: FetchedImage,
  context: TaskContext,
): Promise<VolumeSystems> => {
  await using opening = new AsyncDisposableStack();
  const systems: InstalledSystem[] = [];
  for (const { deployed } of physicalVolumes(plan, nodes, image, context)) {
    const opened = opening.use(await openDeployed(deployed, ({ role }) => role === 'os'));
    for (const { volume, device } of opened.volumes) {
      systems.push({ name: volume.name, device, filesystem: volume.filesystem?.type ?? '' });
    }
  }
  const opened = opening.move();
  return { systems, [Symbol.asyncDispose]: () => opened.disposeAsync() };
};

interface PhysicalVolume {
  name: string;
  size: number;
  grow: boolean;
  deployed: DeployedVolumes;
}

const physicalVolumes = (
  plan: Plan,
  nodes: ReadonlyMap<string, string>,
  image: FetchedImage,
  { signal }: TaskContext,
): PhysicalVolume[] => {
  const physical = plan.partitions.filter((one) => one.filesystem === 'LVM2_member' && one.method === 'used');
  const devices = physical.map(({ name }) => nodes.get(name) ?? '');
  return physical.map(({ name, size, grow }) => {
    const contains = partitionOf(image, name)?.contains ?? [];
    return {
      name,
      size,
      grow,
      deployed: { device: nodes.get(name) ?? '', nodes: devices, contains, signal },
    };
  });
};

const partitionOf = (image: FetchedImage, name: string): ImagePartition | undefined =>
  image.manifest.disks.flatMap(({ partitions }) => partitions).find((partition) => partition.name === name);
