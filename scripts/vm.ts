import { mkdtempSync, rmSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setInterval as everyMs } from 'node:timers/promises';
import { hasCode, toImagingError } from '../agent/errors.ts';
import { bootNetwork } from './lib/vm/boot-folder.ts';
import { readConsole } from './lib/vm/console.ts';
import type { Network } from './lib/vm/hardware.ts';
import { type Machine, startMachine } from './lib/vm/machine.ts';
import { parseVmOptions, type VmOptions } from './lib/vm/options.ts';

/** as timeout(1) */
const TIMED_OUT = 124;
let pictures = 0;

const main = async (): Promise<number> => {
  const options = await parseVmOptions(process.argv.slice(2));
  const folder = mkdtempSync(join(tmpdir(), 'fog-vm-boot-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => interrupted.abort(new Error(`interrupted by ${signal}`)));
  }
  const [first, ...others] = options.nics;
  const machine = await startMachine({
    ...options,
    // ours: the machine's own folder goes with it, before the last lines are shown
    console: options.console ?? join(folder, 'console'),
    nics: [{ ...first, network: await network(options, folder) }, ...others],
    signal: interrupted.signal,
  });
  return watch(machine, options, interrupted.signal);
};

const network = async ({ tap, server, boot, firmware }: VmOptions, folder: string): Promise<Network> => {
  if (tap !== undefined) return { kind: 'tap', interface: tap };
  return server !== undefined && boot === 'net' ? bootNetwork(server, firmware, folder) : { kind: 'user' };
};

const watch = async (machine: Machine, options: VmOptions, signal: AbortSignal): Promise<number> => {
  const done = new AbortController();
  const shown = options.console === undefined ? showConsole(machine, done.signal) : Promise.resolve();
  const { screenshot } = options;
  const watched = screenshot === undefined ? Promise.resolve() : picture(machine, screenshot, done.signal);
  try {
    const exit = await machine.waitForExit({ timeoutMs: options.timeoutMs });
    if (signal.aborted) throw signal.reason;
    console.error(`vm: ${exit.reason}`);
    return exit.reason.startsWith('guest-') && exit.reason !== 'guest-panic' ? 0 : 1;
  } catch (error) {
    if (!hasCode(error, 'TOOL_TIMEOUT')) throw error;
    if (screenshot !== undefined) await takePicture(machine, screenshot);
    console.error(`vm: still running after ${options.timeoutMs / 1000} s, ended`);
    return TIMED_OUT;
  } finally {
    await machine.kill();
    done.abort();
    await Promise.all([shown, watched]);
  }
};

const showConsole = async (machine: Machine, done: AbortSignal): Promise<void> => {
  const reader = readConsole(machine.consoleFile);
  let length = 0;
  const show = (): void => {
    const text = reader.raw();
    process.stdout.write(text.slice(length));
    length = text.length;
  };
  for await (const _ of ticks(200, done)) show();
  show();
};

/** A machine that has ended has no screen any more: one picture a second while it runs. */
const picture = async (machine: Machine, path: string, done: AbortSignal): Promise<void> => {
  for await (const _ of ticks(1000, done)) {
    // the last one meets a machine that is just ending
    await takePicture(machine, path).catch(() => undefined);
  }
};

/** Under its name only when it is whole: QEMU may end in the middle of one. */
const takePicture = async (machine: Machine, path: string): Promise<void> => {
  const partial = join(machine.folder, `screen-${pictures++}.png`);
  await machine.screenshot(partial);
  await copyFile(partial, path);
};

async function* ticks(ms: number, signal: AbortSignal): AsyncGenerator<void> {
  try {
    for await (const _ of everyMs(ms, undefined, { signal })) yield;
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  const { code, message } = toImagingError(error);
  console.error(`${message} (${code})`);
  process.exitCode = code === 'CONFIG_INVALID' ? 2 : 1;
}
