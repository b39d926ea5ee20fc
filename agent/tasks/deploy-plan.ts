import type { Disk } from '../disk/disk.ts';
import { planText } from '../disk/plan-text.ts';
import { type PlanOptions, planDeploy } from '../disk/planner.ts';
import { type DiskTable, readTable } from '../disk/table.ts';
import { ImagingError } from '../errors.ts';
import type { Manifest, Plan } from '../protocol/index.ts';
import type { TaskContext, TaskOf } from './context.ts';
import type { Pair } from './deploy-targets.ts';

export interface Planned {
  disk: Disk;
  plan: Plan;
}

/**
 * What the task's options make of an image on these disks: called with a manifest it plans every disk of it, or
 * refuses all. The tables that are there are read once, and only where an option depends on them.
 *
 * @throws ImagingError OPTION_REFUSED, LAYOUT_UNSUPPORTED (a table that is to be kept cannot be read)
 */
export const createPlanner = async (
  task: TaskOf<'deploy'>,
  pairs: readonly Pair[],
  { identity, signal }: TaskContext,
): Promise<(manifest: Manifest) => Planned[]> => {
  const { grow, growPartition, partitions, keep, newIdentity } = task.params;
  if (pairs.length > 1 && (keep ?? partitions ?? growPartition) !== undefined) {
    throw new ImagingError(
      'OPTION_REFUSED',
      `Cannot choose partitions by number: the image has ${pairs.length} disks`,
    );
  }
  const present = new Map<Disk, DiskTable>();
  for (const { disk } of pairs) {
    if (keep || partitions) present.set(disk, await readTable(disk.path, { signal }));
  }
  return (manifest) =>
    pairs.map(({ image, disk }) => {
      const table = present.get(disk);
      const options: PlanOptions = {
        firmware: identity.firmware,
        grow,
        imageDisk: image.name,
        ...(growPartition === undefined ? {} : { growPartition }),
        ...(partitions ? { partitions } : {}),
        ...(keep ? { keep } : {}),
        ...(table ? { present: table } : {}),
        ...(newIdentity ? { newIdentity: task.id } : {}),
      };
      return { disk, plan: planDeploy(manifest, disk, options) };
    });
};

/** One line for people. */
export const summaryOf = (plans: readonly Plan[], manifest: Manifest): string => {
  const os = manifest.os ? ` (${manifest.os.name} ${manifest.os.version})` : '';
  const from = manifest.derivedFrom === null ? '' : `, made from ${manifest.derivedFrom} for smaller disks`;
  const to = plans.map(({ partitions, disk }) => {
    const serial = disk.serial || disk.wwn || 'without serial';
    return `${partitions.length} partitions, to disk ${serial}`;
  });
  return `${manifest.image} version ${manifest.version}${from}${os}, ${to.join(' and ')}`;
};

/** The plans as a person would draw them. */
export const drawingOf = (plans: readonly Plan[], manifest: Manifest): string =>
  plans
    .flatMap((plan) => {
      const image = manifest.disks.find(({ name }) => name === plan.imageDisk);
      return image ? [planText(plan, image)] : [];
    })
    .join('\n\n');
