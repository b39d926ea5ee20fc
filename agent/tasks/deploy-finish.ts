import type { DiskClaim } from '../disk/claim.ts';
import { addPartitions, flushDevice, removePartitions } from '../disk/partition-nodes.ts';
import { writeTable } from '../disk/table.ts';
import { ImagingError } from '../errors.ts';
import { isRelocated } from '../os/windows-recovery.ts';
import type { Manifest, Plan, TaskParams } from '../protocol/index.ts';
import type { TaskContext } from './context.ts';
import { placeFallback, setEntry } from './deploy-boot.ts';
import { type FetchedImage, fileOf } from './deploy-fetch.ts';
import { relocationOf, setIdentity } from './deploy-identity.ts';
import { finishPartition } from './finish-partition.ts';
import { finishVolumes, openSystems } from './finish-volumes.ts';

export interface FinishOptions {
  claim: DiskClaim;
  plan: Plan;
  image: FetchedImage;
  /** the version that the task names: where partitions lay when their contents were captured */
  captured: Manifest;
  params: TaskParams<'deploy'>;
  context: TaskContext;
}

/**
 * From data to a disk that boots: swap made anew, filesystems grown and checked on partitions that only
 * the kernel knows, the systems in them given this host's identity, then boot code and table in one go,
 * then the firmware's boot entry. Resolves with what the task asked for identity and could not be done,
 * for the end of the task: all else is.
 */
export const finishDisk = async ({
  claim,
  plan,
  image,
  captured,
  params,
  context,
}: FinishOptions): Promise<ImagingError | null> => {
  const { signal } = context;
  const { manifest } = image;
  await flushDevice(claim.path, { signal });
  const nodes = await addPartitions(claim, plan, { signal });
  for (const partition of plan.partitions) {
    const device = nodes.get(partition.name);
    if (!device)
      throw new ImagingError('INTERNAL', `Cannot finish ${partition.name}: the kernel made no node for it`);
    await finishPartition(partition, plan, device, image, context);
    await flushDevice(device, { signal });
  }
  await finishVolumes(plan, nodes, image, context);
  const unmet = await identify({ plan, image, captured, params, context }, nodes);
  await placeFallback(manifest, plan, nodes, context);
  await removePartitions(claim, { signal });

  context.step('table');
  const imageDisk = manifest.disks.find(({ name }) => name === plan.imageDisk);
  const bootArea = imageDisk?.bootArea ? fileOf(image, imageDisk.bootArea.name) : null;
  const table = await writeTable(claim, plan, { ...(bootArea ? { bootArea } : {}), signal });
  context.prove(
    'the partition table is the planned one',
    `${table.kind} ${table.id} with ${table.partitions.length} partitions, read back and compared`,
  );
  await setEntry({ claim, manifest, plan, table }, context);
  return unmet;
};

const identify = async (
  { plan, image, captured, params, context }: Omit<FinishOptions, 'claim'>,
  nodes: ReadonlyMap<string, string>,
): Promise<ImagingError | null> => {
  const { manifest } = image;
  const relocation = relocationOf(captured, plan);
  if (!params.setHostname && !params.freshMachineId && !isRelocated(relocation)) return null;
  await using volumes = await openSystems(plan, nodes, image, context);
  return await setIdentity({ manifest, plan, params, relocation, nodes, volumes: volumes.systems, context });
};
