import { release } from 'node:os';
import { type Disk, listDisks } from '../disk/disk.ts';
import { ImagingError } from '../errors.ts';
import { createBusyMeter } from '../image/busy.ts';
import { type ChunkPool, togetherOf } from '../image/pool.ts';
import { diskFactsSchema, fromWireError, type WipedDisk, type WipeType } from '../protocol/index.ts';
import { agentVersion } from '../version.ts';
import { type Choice, chooseDisks, type WipeTarget } from '../wipe/choose.ts';
import { countDown } from '../wipe/countdown.ts';
import type { WipeMode } from '../wipe/plan.ts';
import { type WipeSteps, wipeDisks } from '../wipe/wipe.ts';
import type { HandlerResult, TaskContext, TaskOf } from './context.ts';
import { bytesWrittenTo, wordsOf } from './disk-facts.ts';
import { eraseToolVersions } from './tool-versions.ts';

const modes: Record<WipeType, WipeMode> = {
  'wipe-fast': 'fast',
  'wipe-normal': 'normal',
  'wipe-full': 'full',
};

/** Everything of the task that a wipe needs; by hand there is no server behind it. */
export type WipeTask = Pick<TaskOf<WipeType>, 'type' | 'params' | 'attempt'>;
export type WipeContext = Pick<
  TaskContext,
  'log' | 'signal' | 'step' | 'prove' | 'warn' | 'showPlan' | 'showWipe' | 'stopKeyPressed'
>;

export interface WipeDeps {
  /** what is there now; a test's own list */
  list?: () => Promise<Disk[]>;
}

/**
 * Erase disks of this machine: those that are named, or all that are its own. Nothing is written before the countdown has ended. One disk
 * that fails does not stop the others, but the task: it succeeds when every chosen disk was erased and read back.
 */
export const wipe = async (
  task: WipeTask,
  context: WipeContext,
  deps: WipeDeps = {},
): Promise<HandlerResult> => {
  const { signal } = context;
  const { params } = task;
  context.step('plan');
  if (task.attempt > 1)
    context.warn('an earlier attempt was cut off and erased nothing that counts: all of it is done again');
  const { list = () => listDisks({ signal }) } = deps;
  const choices = chooseDisks(await list(), targetOf(params));
  const plan = choices.map(({ disk, skip }) => ({
    ...diskFactsSchema.parse(disk),
    wipe: skip === null,
    reason: skip,
  }));
  context.showPlan({ type: task.type, disks: plan });
  if (params.dryRun) return dryRun(task, choices, context);

  // before the first write: a tool that does not say its version must not cost the report of a day's work
  const tools = await eraseToolVersions(signal);
  const chosen = choices.filter(({ skip }) => skip === null).map(({ disk }) => disk);
  await countDownWith(chosen, params.countdownSeconds, context);
  const disks = await wipeDisks({
    choices,
    mode: modes[task.type],
    passes: 'passes' in params ? params.passes : 1,
    verify: params.verify,
    purge: params.purge ? (params.orOverwrite ? 'preferred' : 'required') : 'no',
    steps: stepsOf(context),
    signal,
  });
  context.showWipe({ agent: { version: agentVersion, kernel: release() }, tools, disks });
  signal.throwIfAborted();
  requireAll(disks);
  for (const disk of disks) if (disk.status !== 'skipped') prove(disk, context);
  return { summary: summaryOf(disks) };
};

const targetOf = ({ disk, disks, allInternal }: WipeTask['params']): WipeTarget => {
  if (allInternal) return { kind: 'all-internal' };
  return { kind: 'named', hints: disks ?? (disk ? [disk] : []) };
};

const countDownWith = async (
  disks: readonly Disk[],
  seconds: number,
  context: WipeContext,
): Promise<void> => {
  if (seconds === 0) return;
  const step = context.step('countdown');
  const over = new AbortController();
  const reading = AbortSignal.any([context.signal, over.signal]);
  const names = disks.map(wordsOf).join(', ');
  try {
    await countDown({
      seconds,
      show: (left) => step.say(`${left} s until ${names} is erased; q stops it`),
      stopped: context.stopKeyPressed(reading),
      signal: context.signal,
    });
  } finally {
    over.abort();
  }
};

const stepsOf = (context: WipeContext): WipeSteps => ({
  log: (text) => context.log.info(text),
  warn: context.warn,
  purging: (message) => {
    const uninterruptible = `the drive's own erasure (${message})`.slice(0, 200);
    const step = context.step('purge', { total: 100, message, uninterruptible });
    const shares = new Map<string, number>();
    let reached = 0;
    return {
      share: (disk, share) => {
        shares.set(disk, share);
        const percent = Math.floor(Math.min(...shares.values()) * 100);
        step.add(percent - reached);
        reached = Math.max(reached, percent);
        step.say([...shares].map(([path, done]) => `${path} ${Math.floor(done * 100)} %`).join(', '));
      },
    };
  },
  overwriting: (total, pools: readonly ChunkPool[]) => {
    const step = context.step('overwrite', { total });
    step.watch(createBusyMeter(togetherOf(pools)));
    return step;
  },
});

/** @throws ImagingError of the first disk that failed, which the others are named with */
const requireAll = (disks: readonly WipedDisk[]): void => {
  const failed = disks.filter(({ error }) => error !== null);
  const [first] = failed;
  if (!first?.error) return;
  const { code, message, details } = fromWireError(first.error);
  const chosen = disks.filter(({ status }) => status !== 'skipped').length;
  const others =
    chosen === 1
      ? ''
      : ` (${failed.length} of ${chosen} disks failed: ${failed.map(({ facts }) => wordsOf(facts)).join(', ')})`;
  throw new ImagingError(code, message + others, { details });
};

const prove = (
  { facts, status, passes, verification, purge }: WipedDisk,
  { prove: say }: WipeContext,
): void => {
  const last = passes.at(-1);
  const pattern = last?.pattern === 'random' ? 'the last pass’s own random bytes' : 'zeros';
  const how =
    verification?.method === 'sample' ? `${verification.places} random places` : 'all that was written';
  const erased = purge?.method
    ? `the drive erased itself (${purge.method}), and none of ${purge.check?.places} known places still holds what it held; `
    : '';
  say(
    `${wordsOf(facts)}: ${status}`,
    `${erased}read back past the cache: ${verification?.bytes} bytes (${how}) are ${pattern}; no signature is left`,
  );
};

const summaryOf = (disks: readonly WipedDisk[]): string =>
  disks
    .map(({ facts, status, reason }) => `${wordsOf(facts)}: ${status}${reason ? ` (${reason})` : ''}`)
    .join('\n')
    .slice(0, 4000);

const dryRun = async (
  task: WipeTask,
  choices: readonly Choice[],
  context: WipeContext,
): Promise<HandlerResult> => {
  for (const { disk } of choices) {
    const written = await bytesWrittenTo(disk);
    if (written === 0)
      context.prove('nothing was written', `the kernel counts 0 bytes written to ${disk.path} since boot`);
    else context.warn(`${disk.path} saw ${written} bytes written since boot, none of them by this dry run`);
  }
  context.prove(
    'the disks were seen',
    `${choices.length} disks, ${choices.filter(({ skip }) => skip === null).length} to be erased`,
  );
  const lines = choices.map(
    ({ disk, skip }) =>
      `${wordsOf(disk)}: ${skip === null ? `would be erased (${task.type})` : `left alone, ${skip}`}`,
  );
  return { summary: lines.join('\n').slice(0, 4000) };
};
