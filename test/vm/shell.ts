import type { Machine } from '../../scripts/lib/vm/machine.ts';

/** Run a command line; resolves with what it printed, trimmed. TOOL_TIMEOUT after `timeoutMs` (2 minutes). */
export type Shell = (command: string, options?: { timeoutMs?: number }) => Promise<string>;

/** The shell that a debug boot opens on the serial console. */
export const openShell = async (machine: Machine, options: { timeoutMs: number }): Promise<Shell> => {
  await machine.waitForConsole(/Debug boot: a shell/, options);
  let number = 0;
  await machine.type('exec bash --noediting --noprofile --norc\n');
  await machine.type('stty -echo; PS1=; dmesg -n 1\n');
  return async (command, { timeoutMs = 120_000 } = {}) => {
    number += 1;
    // the marks are put together by the shell, so that the echo of the command is not taken for its output
    await machine.type(`printf '<%s>' b${number}; ${command}; printf '<%s>' e${number}\n`);
    const marks = new RegExp(`<b${number}>((?:.|\\n)*?)<e${number}>`);
    const [, output = ''] = await machine.waitForConsole(marks, { timeoutMs });
    return output.trim();
  };
};
