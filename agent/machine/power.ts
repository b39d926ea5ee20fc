import { run } from '../process/run.ts';

export type PowerAction = 'reboot' | 'poweroff';

/**
 * Write everything back, then restart or switch off at once, without asking services to stop: there
 * are none. Resolves when the kernel was told; the machine is gone moments later.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const power = async (action: PowerAction, runTool: typeof run = run): Promise<void> => {
  await runTool('sync', [], { timeoutMs: 10 * 60_000 });
  await runTool(action, ['-f']);
};
