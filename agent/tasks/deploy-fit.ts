import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode, ImagingError } from '../errors.ts';
import type { ImageDisk, Manifest } from '../protocol/index.ts';
import type { Step, TaskContext, TaskOf } from './context.ts';
import { type FetchedImage, fetchImage } from './deploy-fetch.ts';

export interface FitOptions<P> {
  task: TaskOf<'deploy'>;
  /** the version that the task names */
  image: FetchedImage;
  /** size in bytes of the disk that each disk of the image goes to, by its name there (`d1`) */
  targets: Readonly<Record<string, number>>;
  /** a plan, or a refusal: of the task's version first, then of a smaller one */
  plan: (manifest: Manifest) => P;
  context: TaskContext;
}

/** how often the server is asked how far it is */
const POLL_MS = 2000;

/**
 * The task's version of the image with a plan for it; where it is too large for the disks, a version that the server
 * makes from it, or has made already. Waiting is a step of its own: it can be cancelled and shows the server's
 * progress. Nothing has been written when this throws.
 *
 * @throws ImagingError TARGET_TOO_SMALL (`neededBytes`: what would do, made as small as it can be; or a dry run, for
 *   which nothing is made), SCRATCH_FULL, IMAGE_UNTRUSTED, and whatever `plan` throws
 */
export const fittingVersion = async <P>(
  options: FitOptions<P>,
): Promise<{ image: FetchedImage; plan: P }> => {
  const { image, plan, context } = options;
  try {
    return { image, plan: plan(image.manifest) };
  } catch (error) {
    if (!hasCode(error, 'TARGET_TOO_SMALL')) throw error;
    context.log.info({ err: error }, 'the image is too large for this disk: asking for a smaller version');
    const smaller = await smallerVersion(options, error);
    return { image: smaller, plan: plan(smaller.manifest) };
  }
};

const smallerVersion = async <P>(options: FitOptions<P>, tooSmall: unknown): Promise<FetchedImage> => {
  const { task, image, context } = options;
  const { manifest } = image;
  const origin = manifest.derivedFrom ?? manifest.version;
  const version = await askFor(options, tooSmall);
  const smaller = await fetchImage(task.params.image, version, context);
  if (smaller.manifest.derivedFrom !== origin) {
    throw new ImagingError(
      'IMAGE_UNTRUSTED',
      `Cannot use ${manifest.image} version ${version}: the server made it from ${smaller.manifest.derivedFrom}, not from ${origin}`,
    );
  }
  context.log.info({ version, origin }, 'going on with the smaller version');
  return smaller;
};

/** @returns the number of the version that fits */
const askFor = async <P>(options: FitOptions<P>, tooSmall: unknown): Promise<number> => {
  const { task, image, targets, context } = options;
  const { signal } = context;
  const disks = image.manifest.disks.flatMap(({ name, size }) => sizeOf({ name, size }, targets));
  if (disks.length === 0) throw tooSmall;
  const request = { attempt: task.attempt, disks, make: !task.params.dryRun };
  let job: string | undefined;
  let step: Step | undefined;
  let known = { total: -1, done: 0 };
  for (;;) {
    const answer = await context.server.derive(task.id, { ...request, ...(job ? { job } : {}) }, signal);
    if (answer.state === 'ready') return answer.version;
    if (answer.state === 'possible') throw notMadeYet(image.manifest, tooSmall);
    const { total, done, message } = answer;
    // the total is known later than the job, and a server that was restarted begins anew
    if (!step || total !== known.total || done < known.done) {
      step = context.step('wait-for-smaller-version', { message, ...(total > 0 ? { total } : {}) });
      known = { total, done: 0 };
    }
    step.add(done - known.done);
    step.say(message);
    known = { total, done };
    job = answer.job;
    await sleep(POLL_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
};

/** Only disks that are too small for theirs: the others keep their size. */
const sizeOf = (
  { name, size }: Pick<ImageDisk, 'name' | 'size'>,
  targets: Readonly<Record<string, number>>,
) => {
  const target = targets[name];
  return target === undefined || target >= size ? [] : [{ name, size: target }];
};

const notMadeYet = ({ image, version }: Manifest, cause: unknown): ImagingError => {
  const { message, details } = cause instanceof ImagingError ? cause : { message: '', details: {} };
  return new ImagingError(
    'TARGET_TOO_SMALL',
    `${message}; a deploy would have the server make a smaller version of ${image}@${version} first`,
    { details, cause },
  );
};
