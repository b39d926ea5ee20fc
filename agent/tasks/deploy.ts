import { claimDisk } from '../disk/claim.ts';
import { type Disk, listDisks } from '../disk/disk.ts';
import { planDeploy } from '../disk/planner.ts';
import { selectDisk } from '../disk/select.ts';
import { ImagingError } from '../errors.ts';
import type { Manifest, Plan } from '../protocol/index.ts';
import type { Handler, TaskContext } from './context.ts';
import { fetchImage } from './deploy-fetch.ts';
import { finishDisk } from './deploy-finish.ts';
import { assertIdentityPossible } from './deploy-identity.ts';
import { transferImage } from './deploy-transfer.ts';
import { bytesWrittenTo, identityOf, sha256 } from './disk-facts.ts';

/**
 * Write an image version to this machine's disk, in the order of DESIGN.md section 5: nothing is
 * written before the plan stands, the partition table comes last, and a cut anywhere leaves a disk that
 * the next attempt goes on with.
 */
export const deploy: Handler<'deploy'> = async (task, context) => {
  const { image: name, version, grow, dryRun, verify } = task.params;

  context.step('plan', { message: `${name} version ${version}` });
  const image = await fetchImage(name, version, context);
  const disk = selectDisk(await listDisks({ signal: context.signal }), task.params.disk, 'deploy');
  context.showDisk(identityOf(disk));
  const plan = planDeploy(image.manifest, disk, { firmware: context.identity.firmware, grow });
  context.showPlan(plan);
  assertIdentityPossible(image.manifest, plan, task.params, context.hostName);
  for (const warning of plan.warnings) context.warn(warning);
  const result = { image: { name, version } };
  if (dryRun) {
    await proveNothingWritten(disk, context);
    return { ...result, summary: `Would write ${summaryOf(plan, image.manifest)}` };
  }

  await using claim = await claimDisk(disk, { signal: context.signal });
  const binding = bindingOf(plan, image.text);
  const stats = await transferImage({
    claim,
    plan,
    image,
    verify,
    binding,
    durable: task.durable,
    context,
  });
  // growing changes chunks that were reported as durable: an attempt after this one must look for itself
  await context.reportDurable({ binding, ranges: {} });
  await finishDisk({ claim, plan, image, params: task.params, context });
  return { ...result, stats, summary: `Wrote ${summaryOf(plan, image.manifest)}` };
};

/** What durable ranges are good for: this version, this plan, this disk. */
const bindingOf = (plan: Plan, manifestText: string): string =>
  sha256(JSON.stringify([sha256(manifestText), plan]));

const summaryOf = (plan: Plan, manifest: Manifest): string => {
  const os = manifest.os ? ` (${manifest.os.name} ${manifest.os.version})` : '';
  const serial = plan.disk.serial || plan.disk.wwn || 'without serial';
  return `${plan.image} version ${plan.version}${os}, ${plan.partitions.length} partitions, to disk ${serial}`;
};

const proveNothingWritten = async (disk: Disk, context: TaskContext): Promise<void> => {
  const written = await bytesWrittenTo(disk);
  if (written !== 0) {
    throw new ImagingError(
      'DISK_CHANGED',
      `Cannot call this a dry run: ${disk.path} saw ${written} bytes written since boot`,
    );
  }
  context.prove('nothing was written', `the kernel counts 0 bytes written to ${disk.path} since boot`);
};
