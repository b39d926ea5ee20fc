import { driverFor } from '../filesystem/index.ts';
import type { PlannedPartition } from '../protocol/index.ts';
import type { TaskContext } from './context.ts';
import type { FetchedImage } from './deploy-fetch.ts';

/** One partition whose data is there: swap made anew, a filesystem grown where the plan says so, and checked. */
export const finishPartition = async (
  partition: PlannedPartition,
  device: string,
  image: FetchedImage,
  context: TaskContext,
): Promise<void> => {
  const { signal } = context;
  const driver = partition.method === 'raw' ? null : driverFor(partition.filesystem);
  if (!driver) return;
  const facts = image.manifest.disks
    .flatMap(({ partitions }) => partitions)
    .find(({ name }) => name === partition.name)?.filesystem;
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
