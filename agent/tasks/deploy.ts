import { type Disk, listDisks } from '../disk/disk.ts';
import { ImagingError } from '../errors.ts';
import type { Plan } from '../protocol/index.ts';
import type { Handler, TaskContext } from './context.ts';
import { requireSound } from './damage.ts';
import { fetchImage } from './deploy-fetch.ts';
import { finishDisk } from './deploy-finish.ts';
import { fittingVersion } from './deploy-fit.ts';
import { assertIdentityPossible } from './deploy-identity.ts';
import { createPlanner, drawingOf, summaryOf } from './deploy-plan.ts';
import { claimTargets, pairDisks } from './deploy-targets.ts';
import { transferImage } from './deploy-transfer.ts';
import { bytesWrittenTo, identityOf, sha256 } from './disk-facts.ts';

/**
 * Write an image version to this machine's disk or disks, in the order of DESIGN.md section 5: nothing is
 * written before every plan stands, the partition tables come last, and a cut anywhere leaves disks that the
 * next attempt goes on with.
 */
export const deploy: Handler<'deploy'> = async (task, context) => {
  const { image: name, version, dryRun, verify } = task.params;

  context.step('plan', { message: `${name} version ${version}` });
  const wanted = await fetchImage(name, version, context);
  requireSound(wanted.manifest, task.params, context.warn);
  const pairs = pairDisks(wanted.manifest, await listDisks({ signal: context.signal }), task.params);
  if (pairs[0]) context.showDisk(identityOf(pairs[0].disk));
  const { image, plan: planned } = await fittingVersion({
    task,
    image: wanted,
    targets: Object.fromEntries(pairs.map(({ image, disk }) => [image.name, disk.size])),
    plan: await createPlanner(task, pairs, context),
    context,
  });
  const plans = planned.map(({ plan }) => plan);
  context.showPlan(plans.length === 1 ? plans[0] : plans);
  for (const { warnings } of plans) for (const warning of warnings) context.warn(warning);
  assertIdentityPossible(image.manifest, plans, task.params, context.hostName);
  const { version: written, derivedFrom } = image.manifest;
  const shown = { name, version: written, ...(derivedFrom === null ? {} : { derivedFrom }) };
  if (dryRun) {
    for (const { disk } of planned) await proveNothingWritten(disk, context);
    const drawing = drawingOf(plans, image.manifest);
    const summary = `Would write ${summaryOf(plans, image.manifest)}\n\n${drawing}`;
    context.showImage(shown);
    return { summary: summary.slice(0, 4000) };
  }

  await using claimed = await claimTargets(planned, context.signal);
  const { targets } = claimed;
  const binding = bindingOf(plans, image.text);
  await transferImage({ targets, image, verify, binding, durable: task.durable, context });
  context.showImage(shown);
  // growing changes chunks that were reported as durable: an attempt after this one must look for itself
  await context.reportDurable({ binding, ranges: {} });
  // the first disk boots: its table comes last
  const unmet: (ImagingError | null)[] = [];
  for (const { claim, plan } of targets.toReversed()) {
    unmet.push(
      await finishDisk({ claim, plan, image, captured: wanted.manifest, params: task.params, context }),
    );
  }
  for (const error of unmet) if (error) throw error;
  return { summary: `Wrote ${summaryOf(plans, image.manifest)}` };
};

/** What durable ranges are good for: this version, these plans, these disks. */
const bindingOf = (plans: readonly Plan[], manifestText: string): string =>
  sha256(JSON.stringify([sha256(manifestText), plans]));

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
