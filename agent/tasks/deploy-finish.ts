import type { DiskClaim } from '../disk/claim.ts';
import { addPartitions, flushDevice, removePartitions } from '../disk/partition-nodes.ts';
import { writeTable } from '../disk/table.ts';
import { ImagingError } from '../errors.ts';
import { driverFor } from '../filesystem/index.ts';
import { setBootEntry } from '../machine/efi-boot.ts';
import type { ImagePartition, Plan, PlannedPartition } from '../protocol/index.ts';
import { checkVolumes, growVolumes } from '../volumes/lvm/grow.ts';
import type { TaskContext } from './context.ts';
import { type FetchedImage, fileOf } from './deploy-fetch.ts';

export interface FinishOptions {
  claim: DiskClaim;
  plan: Plan;
  image: FetchedImage;
  context: TaskContext;
}

/**
 * From data to a disk that boots: swap made anew, filesystems grown and checked on partitions that only
 * the kernel knows, then boot code and table in one go, then the firmware's boot entry.
 */
export const finishDisk = async ({ claim, plan, image, context }: FinishOptions): Promise<void> => {
  const { signal } = context;
  await flushDevice(claim.path, { signal });
  const nodes = await addPartitions(claim, plan, { signal });
  for (const partition of plan.partitions) {
    const device = nodes.get(partition.name);
    if (!device)
      throw new ImagingError('INTERNAL', `Cannot finish ${partition.name}: the kernel made no node for it`);
    await finishPartition(partition, device, image, context);
    await flushDevice(device, { signal });
  }
  await finishVolumes(plan, nodes, image, context);
  await removePartitions(claim, { signal });

  context.step('table');
  const imageDisk = image.manifest.disks.find(({ name }) => name === plan.imageDisk);
  const bootArea = imageDisk?.bootArea ? fileOf(image, imageDisk.bootArea.name) : null;
  const table = await writeTable(claim, plan, { ...(bootArea ? { bootArea } : {}), signal });
  context.prove(
    'the partition table is the planned one',
    `${table.kind} ${table.id} with ${table.partitions.length} partitions, read back and compared`,
  );

  if (image.manifest.firmware !== 'uefi') return;
  // a further disk of an image holds data, the first one boots; an ESP that stays has its entry already
  const hasEsp = plan.partitions.some(({ role }) => role === 'esp');
  if (!hasEsp && (plan.imageDisk !== 'd1' || plan.kept.length > 0)) return;
  context.step('boot-entry');
  const esp = plan.partitions.find(({ role }) => role === 'esp');
  const device = table.partitions.find(({ number }) => number === esp?.number)?.path;
  if (!esp || !device) {
    throw new ImagingError(
      'BOOT_ENTRY_FAILED',
      'Cannot set the boot entry: the deployed disk has no EFI system partition',
    );
  }
  const label = image.manifest.os?.name ?? image.manifest.image;
  const entry = await setBootEntry({ claim, partition: esp.number, device, label, signal });
  for (const { what, proof } of entry.evidence) context.prove(what, proof);
  for (const warning of entry.warnings) context.warn(warning);
};

/** After all partitions are there: a volume group may span them. */
const finishVolumes = async (
  plan: Plan,
  nodes: ReadonlyMap<string, string>,
  image: FetchedImage,
  context: TaskContext,
): Promise<void> => {
  const physical = plan.partitions.filter((one) => one.filesystem === 'LVM2_member' && one.method === 'used');
  const devices = physical.map(({ name }) => nodes.get(name) ?? '');
  for (const { name, size, grow } of physical) {
    const contains = partitionOf(image, name)?.contains ?? [];
    const deployed = { device: nodes.get(name) ?? '', nodes: devices, contains, signal: context.signal };
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

const partitionOf = (image: FetchedImage, name: string): ImagePartition | undefined =>
  image.manifest.disks.flatMap(({ partitions }) => partitions).find((partition) => partition.name === name);

const finishPartition = async (
  partition: PlannedPartition,
  device: string,
  image: FetchedImage,
  context: TaskContext,
): Promise<void> => {
  const { signal } = context;
  const driver = partition.method === 'raw' ? null : driverFor(partition.filesystem);
  if (!driver) return;
  const facts = partitionOf(image, partition.name)?.filesystem;
  if (partition.method === 'recreate' && driver.recreate && facts) {
    context.step('recreate', { message: `${partition.name} ${partition.filesystem}` });
    await driver.recreate(device, facts, signal);
    context.prove(`${partition.name} is ${partition.filesystem} again`, `UUID ${facts.uuid} read back`);
  } else if (partition.grow && driver.grow) {
    context.step('grow', {
      message: `${partition.name} ${partition.filesystem} to ${partition.size} bytes`,
      uninterruptible: `growing ${partition.name}`,
    });
    // a resizer that is killed leaves a filesystem between two sizes: a cancel waits for its end
    await driver.grow(device, new AbortController().signal);
    signal.throwIfAborted();
    context.prove(
      `${partition.name} fills its ${partition.size} bytes`,
      `${partition.filesystem} grown, its own check is clean`,
    );
  } else {
    context.step('check', { message: `${partition.name} ${partition.filesystem}` });
    await driver.check(device, signal);
    context.prove(`${partition.name} is sound`, `the read-only check of ${partition.filesystem} is clean`);
  }
};
