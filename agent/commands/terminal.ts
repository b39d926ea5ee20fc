import { ImagingError } from '../errors.ts';
import { createMeter } from '../progress/meter.ts';
import type { TaskContext } from '../tasks/context.ts';
import { duration, size } from '../tui/view.ts';

/** Aborted by Ctrl-C and by SIGTERM: the command then ends as a cancelled task does. */
export const untilInterrupted = (): AbortSignal => {
  const ending = new AbortController();
  const end = (): void =>
    ending.abort(new ImagingError('TASK_CANCELLED', 'Cannot go on: stopped at the terminal'));
  process.once('SIGINT', end);
  process.once('SIGTERM', end);
  return ending.signal;
};

/** The steps of a task that runs by hand, on standard error; a bar only where somebody looks at it. */
export const terminalStep: TaskContext['step'] = (name, options) => {
  const meter = createMeter(options?.total ?? null);
  let shown = 0;
  const show = (text: string): void => console.error(`${name}: ${text}`);
  if (options?.message) show(options.message);
  return {
    add: (bytes) => {
      meter.add(bytes);
      if (performance.now() - shown < 1000 || !process.stderr.isTTY) return;
      shown = performance.now();
      const { done, total, rate, etaSeconds } = meter.read();
      const left = etaSeconds === null ? '' : `, ${duration(etaSeconds)} left`;
      process.stderr.write(`\r${name}: ${size(done)} of ${size(total ?? 0)}, ${size(rate)}/s${left}   `);
    },
    say: show,
    watch: () => undefined,
  };
};
