import { clearStaleSignatures } from '../disk/signatures.ts';
import { setFatHiddenSectors, setNtfsHiddenSectors } from '../filesystem/hidden-sectors.ts';
import { driverFor } from '../filesystem/index.ts';
import { decodeMap } from '../image/used-map.ts';
import type { Plan, PlannedPartition } from '../protocol/index.ts';
import type { TaskContext } from './context.ts';
import { type FetchedImage, fileOf } from './deploy-fetch.ts';

/**
 * One partition whose data is there: freed of its former owner's signatures, swap made anew, a filesystem told of
 * its new place, grown where the plan says so, and checked.
 */
export const finishPartition = async (
  partition: PlannedPartition,
  plan: Plan,
  device: string,
  image: FetchedImage,
  context: TaskContext,
): Promise<void> => {
  const { signal } = context;
  await forgetFormerOwner(partition, device, image, context);
  const driver = partition.method === 'raw' ? null : driverFor(partition.filesystem);
  if (!driver) return;
  const original = image.manifest.disks
    .flatMap(({ partitions }) => partitions)
    .find(({ name }) => name === partition.name);
  const facts = original?.filesystem;
  // a smaller copy of an image holds what was captured elsewhere
  if (original && (original.start !== partition.start || image.manifest.derivedFrom !== null)) {
    await tellPlace(partition, plan.disk.logicalSectorSize, device, context);
  }
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

const forgetFormerOwner = async (
  { name, method }: PlannedPartition,
  device: string,
  image: FetchedImage,
  { signal, log }: TaskContext,
): Promise<void> => {
  const used = method === 'recreate' ? [] : decodeMap(fileOf(image, `${name}.map`)).extents;
  const cleared = await clearStaleSignatures(device, used, { signal });
  if (cleared.length > 0) log.info({ cleared }, `${name}: cleared what a former owner left in free space`);
};

/** Boot code of BIOS machines, and Windows, go by what FAT and NTFS say of the sectors before them. */
const tellPlace = async (
  { name, filesystem, start }: PlannedPartition,
  sectorSize: number,
  device: string,
  context: TaskContext,
): Promise<void> => {
  if (filesystem !== 'ntfs' && filesystem !== 'vfat') return;
  const tell = filesystem === 'ntfs' ? setNtfsHiddenSectors : setFatHiddenSectors;
  const sector = start / sectorSize;
  await tell(device, sector, context.signal);
  context.prove(
    `${name} knows its place`,
    `hidden sectors of ${filesystem} are ${sector}, its start, read back`,
  );
};
