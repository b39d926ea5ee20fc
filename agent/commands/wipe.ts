import { createInterface } from 'node:readline/promises';
import { type Disk, listDisks } from '../disk/disk.ts';
import { ImagingError, toImagingError } from '../errors.ts';
import { createLog } from '../log.ts';
import { type TaskResult, taskParamsSchemas, type WipeType } from '../protocol/index.ts';
import { type WipeContext, type WipeTask, wipe } from '../tasks/wipe.ts';
import { stopKeyPressed } from '../tui/key.ts';
import { terminalStep, untilInterrupted } from './terminal.ts';

export interface WipeCommandOptions {
  /** serial numbers */
  disk?: readonly string[];
  allInternal: boolean;
  mode: 'fast' | 'normal' | 'full';
  passes?: number;
  purge: boolean;
  orOverwrite: boolean;
  verify: 'full' | 'sample';
  /** no question, no countdown */
  yes: boolean;
  dryRun: boolean;
  json: boolean;
}

/** what somebody must type before anything is written */
const WORD = 'erase';

/**
 * `fog wipe`: what the task of this mode does, at this terminal. Its report is printed; a certificate is the server's to give, so
 * there is none. Exit codes: 0 every chosen disk was erased and read back, 1 not.
 */
export const wipeCommand = async (options: WipeCommandOptions): Promise<void> => {
  const signal = untilInterrupted();
  const { context, report } = terminalContext(signal);
  const task = taskOf(options);
  try {
    const list = (): Promise<Disk[]> => listDisks({ signal });
    if (!options.dryRun && !options.yes) {
      const { summary } = await wipe({ ...task, params: { ...task.params, dryRun: true } }, quiet(context), {
        list,
      });
      await confirm(summary);
    }
    const { summary } = await wipe(task, context, { list });
    if (!options.json) console.log(summary);
  } catch (thrown) {
    const { code, message } = toImagingError(signal.aborted ? signal.reason : thrown);
    console.error(`fog: ${message} [${code}]`);
    process.exitCode = 1;
  }
  if (options.json) console.log(JSON.stringify(report(), null, 2));
};

/** The task that a server would give, checked by the same schema. */
const taskOf = (options: WipeCommandOptions): WipeTask => {
  const { disk, allInternal, mode, passes, purge, orOverwrite, verify, yes, dryRun } = options;
  const type: WipeType = `wipe-${mode}`;
  if (passes !== undefined && mode !== 'full') {
    throw new ImagingError('BAD_REQUEST', 'Cannot wipe: --passes goes with --mode full');
  }
  const parsed = taskParamsSchemas[type].safeParse({
    ...(disk ? { disks: disk.map((serial) => ({ serial })) } : {}),
    ...(passes === undefined ? {} : { passes }),
    ...{ allInternal, purge, orOverwrite, verify, dryRun },
    countdownSeconds: yes ? 0 : 10,
  });
  if (parsed.success) return { type, params: parsed.data, attempt: 1 } as WipeTask;
  const reasons = parsed.error.issues.map(({ path, message }) => [...path, message].join(': '));
  throw new ImagingError('BAD_REQUEST', `Cannot wipe: ${reasons.join('; ')} (fog wipe --help)`);
};

/** @throws ImagingError TASK_CANCELLED, BAD_REQUEST (nobody can be asked) */
const confirm = async (summary: string): Promise<void> => {
  console.error(summary);
  if (!process.stdin.isTTY) {
    throw new ImagingError('BAD_REQUEST', 'Cannot ask whether this is meant: no terminal; --yes says so');
  }
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await terminal.question(`This cannot be undone. Type "${WORD}" to go on: `);
  terminal.close();
  if (answer.trim() === WORD) return;
  throw new ImagingError('TASK_CANCELLED', 'Cannot wipe: not confirmed; nothing was written');
};

const quiet = (context: WipeContext): WipeContext => ({
  ...context,
  prove: () => undefined,
  showPlan: () => undefined,
  step: () => ({ add: () => undefined, say: () => undefined, watch: () => undefined }),
});

/** What a server would be told, on standard error; the report is kept for --json. */
const terminalContext = (
  signal: AbortSignal,
): { context: WipeContext; report: () => Pick<TaskResult, 'plan' | 'wipe'> } => {
  const log = createLog({ toConsole: (line) => console.error(line) });
  const kept: Pick<TaskResult, 'plan' | 'wipe'> = {};
  const context: WipeContext = {
    log,
    signal,
    stopKeyPressed,
    step: terminalStep,
    prove: (what, proof) => log.info(`proved: ${what}: ${proof}`),
    warn: (text) => log.warn(text),
    showPlan: (plan) => {
      kept.plan = plan;
    },
    showWipe: (report) => {
      kept.wipe = report;
    },
  };
  return { context, report: () => kept };
};
