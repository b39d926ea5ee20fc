import { randomUUID } from 'node:crypto';
import { hasCode, ImagingError, toImagingError } from '../../../agent/errors.ts';
import type { Manifest } from '../../../agent/protocol/index.ts';
import { createMutex } from '../../mutex.ts';
import type { State } from '../../state.ts';
import { deriveVersion } from './derive.ts';
import { fittingVersion, originOf } from './find.ts';
import { planShrink, type ShrinkPlan, smallestTargets, type Targets } from './layout.ts';
import { roundDown } from './round.ts';

/** One smaller version being made, or made, or found. What is asked again while it lasts is the same job. */
export interface ShrinkJob {
  readonly id: string;
  readonly image: string;
  /** the captured version that it comes from */
  readonly version: number;
  readonly targets: Targets;
  state: 'queued' | 'running' | 'done' | 'failed';
  /** what is going on, for people */
  message: string;
  /** bytes; total 0 while it is not known */
  done: number;
  total: number;
  /** the smaller version, once there is one */
  result: number | null;
  error: ImagingError | null;
  /** deploys that wait for it */
  readonly tasks: Set<string>;
}

export interface Shrinks {
  /**
   * A version of `image` whose disks are at most this large: one that exists, else a job that makes it. Without
   * `targets`: the smallest sensible. `taskId`: the deploy that waits for it.
   *
   * @throws ImagingError TARGET_TOO_SMALL, OPTION_REFUSED, IMAGE_NOT_FOUND, before anything is begun
   */
  ask(image: string, version: number, targets?: Targets, taskId?: string): Promise<ShrinkJob>;
  /** As `ask`, but nothing is made: the version that would do, or undefined where one could be made. */
  look(image: string, version: number, targets: Targets): Promise<number | undefined>;
  job(id: string): ShrinkJob | undefined;
  /** whether something is being made from this captured version, or waits to be */
  isSource(image: string, version: number): boolean;
  close(): Promise<void>;
}

/** ended jobs that can still be asked about */
const REMEMBERED = 200;

/** `onError` is told of defects: refusals are the askers'. */
export const createShrinks = (state: State, onError: (error: unknown) => void): Shrinks => {
  const jobs = new Map<string, ShrinkJob>();
  const oneAtATime = createMutex();
  const closing = new AbortController();

  const open = (): ShrinkJob[] =>
    [...jobs.values()].filter(({ state: s }) => s === 'queued' || s === 'running');

  const add = (origin: Manifest, targets: Targets, rest: Partial<ShrinkJob> = {}): ShrinkJob => {
    const job: ShrinkJob = {
      id: randomUUID(),
      image: origin.image,
      version: origin.version,
      targets,
      state: 'queued',
      message: 'waits for others that are being made',
      done: 0,
      total: 0,
      result: null,
      error: null,
      tasks: new Set(),
      ...rest,
    };
    jobs.set(job.id, job);
    const ended = [...jobs.values()].filter((one) => one.state === 'done' || one.state === 'failed');
    for (const { id } of ended.slice(0, -REMEMBERED)) jobs.delete(id);
    return job;
  };

  const make = async (job: ShrinkJob, origin: Manifest, plan: ShrinkPlan): Promise<void> => {
    closing.signal.throwIfAborted();
    job.state = 'running';
    // the one before it may have made what fits
    const existing = await fittingVersion(state, origin, job.targets);
    job.result =
      existing?.version ??
      (await deriveVersion(state, {
        manifest: origin,
        plan,
        onTotal: (bytes) => {
          job.total = bytes;
        },
        onStep: (text) => {
          job.message = text;
        },
        onProgress: (bytes) => {
          job.done = Math.min(job.done + bytes, job.total);
        },
        signal: closing.signal,
      }));
    job.done = job.total;
    job.message = '';
    job.state = 'done';
  };

  const start = (job: ShrinkJob, origin: Manifest, plan: ShrinkPlan): void => {
    const { image, version } = job;
    const tell = (what: string, rest: object = {}): void =>
      state.announce({ kind: 'image', subject: image, data: { version, what, job: job.id, ...rest } });
    tell('shrink begins', { targets: job.targets });
    void oneAtATime(() => make(job, origin, plan)).then(
      () => tell('shrink ended', { result: job.result }),
      (thrown: unknown) => {
        job.error = toImagingError(thrown);
        job.state = 'failed';
        tell('shrink failed', { code: job.error.code, message: job.error.message });
        if (job.error.code === 'INTERNAL' && !closing.signal.aborted) onError(thrown);
      },
    );
  };

  const ask: Shrinks['ask'] = async (image, version, asked, taskId) => {
    const origin = await originOf(state, image, version);
    const targets = asked ?? smallestTargets(origin);
    const existing = await fittingVersion(state, origin, targets);
    if (existing) return add(origin, targets, { state: 'done', message: '', result: existing.version });
    const { plan, targets: rounded } = planRounded(origin, targets);
    const same = open().find(
      (job) => job.image === image && job.version === origin.version && within(job.targets, targets),
    );
    const job = same ?? add(origin, rounded);
    if (taskId !== undefined) job.tasks.add(taskId);
    if (!same) start(job, origin, plan);
    return job;
  };

  return {
    ask,
    look: async (image, version, targets) => {
      const origin = await originOf(state, image, version);
      const existing = await fittingVersion(state, origin, targets);
      if (!existing) planRounded(origin, targets);
      return existing?.version;
    },
    job: (id) => jobs.get(id),
    isSource: (image, version) => open().some((job) => job.image === image && job.version === version),
    close: async () => {
      closing.abort(new ImagingError('SERVER_ERROR', 'Cannot make a smaller version: the server stops'));
      await oneAtATime(async () => undefined);
    },
  };
};

/** Rounded where it fits so; the exact sizes where every byte is needed. */
const planRounded = (origin: Manifest, targets: Targets): { plan: ShrinkPlan; targets: Targets } => {
  const rounded = Object.fromEntries(Object.entries(targets).map(([name, size]) => [name, roundDown(size)]));
  try {
    return { plan: planShrink(origin, rounded), targets: rounded };
  } catch (error) {
    if (!hasCode(error, 'TARGET_TOO_SMALL')) throw error;
    return { plan: planShrink(origin, targets), targets };
  }
};

/** What is being made for `inner` fits `outer` too. */
const within = (inner: Targets, outer: Targets): boolean => {
  const names = Object.keys(outer);
  if (names.length !== Object.keys(inner).length) return false;
  return names.every((name) => (inner[name] ?? Number.POSITIVE_INFINITY) <= (outer[name] ?? 0));
};
