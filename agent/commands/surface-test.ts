import { ImagingError, toImagingError } from '../errors.ts';
import { createLog } from '../log.ts';
import { type SurfaceMode, type SurfaceReport, surfaceTestParamsSchema } from '../protocol/index.ts';
import { type SurfaceContext, surfaceTest } from '../tasks/surface-test.ts';
import { terminalStep, untilInterrupted } from './terminal.ts';

export interface SurfaceTestCommandOptions {
  /** serial numbers */
  disk?: readonly string[];
  allInternal: boolean;
  mode: SurfaceMode;
  json: boolean;
}

/** verdicts as exit codes; 3: a disk could not be tested */
const exitCodes = { good: 0, suspect: 1, bad: 2 } as const;
const NOT_TESTED = 3;

/**
 * `fog surface-test`: what the task does, at this terminal. Exit codes: 0 all disks are good, 1 one is suspect, 2 one is bad,
 * 3 one could not be tested.
 */
export const surfaceTestCommand = async (options: SurfaceTestCommandOptions): Promise<void> => {
  const signal = untilInterrupted();
  let report: SurfaceReport | undefined;
  const log = createLog({ toConsole: (line) => console.error(line) });
  const context: SurfaceContext = {
    ...{ log, signal, step: stepOf(options.json) },
    prove: (what, proof) => log.info(`proved: ${what}: ${proof}`),
    warn: (text) => log.warn(text),
    showPlan: () => undefined,
    showSurface: (found) => {
      report = found;
    },
  };
  try {
    const { summary } = await surfaceTest({ params: paramsOf(options), attempt: 1 }, context);
    if (!options.json) console.log(summary);
    const codes = report?.disks.map(({ verdict }) => (verdict ? exitCodes[verdict] : 0)) ?? [];
    process.exitCode = Math.max(0, ...codes);
  } catch (thrown) {
    const { code, message } = toImagingError(signal.aborted ? signal.reason : thrown);
    console.error(`fog: ${message} [${code}]`);
    process.exitCode = NOT_TESTED;
  }
  if (options.json) console.log(JSON.stringify(report ?? null, null, 2));
};

/** The tool tells its progress every second: only where somebody looks, and said once. */
const stepOf =
  (quiet: boolean): SurfaceContext['step'] =>
  (name, options) => {
    const step = terminalStep(name, options);
    let last = '';
    return {
      ...step,
      say: (text) => {
        if (text !== last && !quiet && !process.stderr.isTTY) step.say(text);
        last = text;
      },
    };
  };

/** The parameters that a server would give, checked by the same schema. */
const paramsOf = ({ disk, allInternal, mode }: SurfaceTestCommandOptions) => {
  const parsed = surfaceTestParamsSchema.safeParse({
    ...(disk ? { disks: disk.map((serial) => ({ serial })) } : {}),
    ...{ allInternal, mode },
  });
  if (parsed.success) return parsed.data;
  const reasons = parsed.error.issues.map(({ path, message }) => [...path, message].join(': '));
  throw new ImagingError('BAD_REQUEST', `Cannot test: ${reasons.join('; ')} (fog surface-test --help)`);
};
