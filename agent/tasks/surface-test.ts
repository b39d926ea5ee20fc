import { type Disk, listDisks } from '../disk/disk.ts';
import { ImagingError } from '../errors.ts';
import { diskFactsSchema, fromWireError, type SurfaceDisk, type SurfaceMode } from '../protocol/index.ts';
import { chooseTestDisks } from '../surface/choose.ts';
import { testDisks } from '../surface/surface.ts';
import type { DiskTest } from '../surface/test-disk.ts';
import type { WipeTarget } from '../wipe/choose.ts';
import type { HandlerResult, TaskContext, TaskOf } from './context.ts';
import { wordsOf } from './disk-facts.ts';

/** Everything of the task that a test needs; by hand there is no server behind it. */
export type SurfaceTask = Pick<TaskOf<'surface-test'>, 'params' | 'attempt'>;
export type SurfaceContext = Pick<
  TaskContext,
  'log' | 'signal' | 'step' | 'prove' | 'warn' | 'showPlan' | 'showSurface'
>;

export interface SurfaceDeps {
  /** what is there now; a test's own list */
  list?: () => Promise<Disk[]>;
  watch?: DiskTest['watch'];
}

/**
 * Read disks of this machine from end to end (or read and write, putting everything back) and say what each is worth. A bad disk is
 * a success: the test found it. It fails where a disk could not be tested.
 */
export const surfaceTest = async (
  { params, attempt }: SurfaceTask,
  context: SurfaceContext,
  deps: SurfaceDeps = {},
): Promise<HandlerResult> => {
  const { signal } = context;
  const { mode } = params;
  context.step('plan');
  if (attempt > 1) context.warn(attemptWords(mode));
  const { list = () => listDisks({ signal }) } = deps;
  const choices = chooseTestDisks(await list(), targetOf(params), mode);
  const plan = choices.map(({ disk, skip }) => ({
    ...diskFactsSchema.parse(disk),
    test: skip === null,
    reason: skip,
  }));
  context.showPlan({ type: 'surface-test', mode, disks: plan });
  const disks = await testDisks({
    ...{ choices, mode, signal },
    steps: {
      found: (text) => context.log.warn(text),
      warn: context.warn,
      testing: (total) => context.step('surface', { total }),
    },
    onReport: (found) => context.showSurface({ mode, disks: structuredClone([...found]) }),
    ...(deps.watch ? { watch: deps.watch } : {}),
  });
  signal.throwIfAborted();
  requireAll(disks);
  for (const disk of disks) if (disk.status === 'tested') prove(disk, mode, context);
  return { summary: surfaceSummary(disks) };
};

const attemptWords = (mode: SurfaceMode): string =>
  mode === 'read'
    ? 'an earlier attempt was cut off: all of it is read again'
    : 'an earlier attempt was cut off while it wrote: if the machine lost power, up to 1 MiB of each disk may hold the test pattern instead of its content; all of it is tested again';

const targetOf = ({ disk, disks }: SurfaceTask['params']): WipeTarget => {
  if (disks) return { kind: 'named', hints: disks };
  return disk ? { kind: 'named', hints: [disk] } : { kind: 'all-internal' };
};

/** @throws ImagingError of the first disk that could not be tested, which the others are named with */
const requireAll = (disks: readonly SurfaceDisk[]): void => {
  const failed = disks.filter(({ error }) => error !== null);
  const [first] = failed;
  if (!first?.error) return;
  const { code, message, details } = fromWireError(first.error);
  const chosen = disks.filter(({ status }) => status !== 'skipped').length;
  const names = failed.map(({ facts }) => wordsOf(facts)).join(', ');
  const others = chosen === 1 ? '' : ` (${failed.length} of ${chosen} disks could not be tested: ${names})`;
  throw new ImagingError(code, message + others, { details });
};

const prove = (
  { facts, verdict, bytes, kernel, latency, bad }: SurfaceDisk,
  mode: SurfaceMode,
  { prove: say, warn }: SurfaceContext,
): void => {
  const counted = kernel
    ? `the kernel counts ${kernel.read} bytes read from it and ${kernel.written} written to it meanwhile`
    : 'the kernel does not count what is read from it';
  const what = mode === 'read' ? 'read' : 'read, written, read back and put back';
  say(
    `${wordsOf(facts)}: ${verdict}`,
    `badblocks ${what} ${bytes} of ${facts.size} bytes past the page cache, ${bad.sectors} sectors are bad; ${counted}; ${latency?.reads ?? 0} single reads timed`,
  );
  if (mode === 'read' && kernel && kernel.written > 0)
    warn(`${facts.name} saw ${kernel.written} bytes written during the test, none of them by it`);
};

/** Disk by disk, for people. */
export const surfaceSummary = (disks: readonly SurfaceDisk[]): string =>
  disks
    .map(({ facts, status, reason, verdict, reasons }) => {
      const why = verdict ? reasons.join('; ') : reason;
      return `${wordsOf(facts)}: ${verdict ?? status}${why ? ` (${why})` : ''}`;
    })
    .join('\n')
    .slice(0, 4000);
