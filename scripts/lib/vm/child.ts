import { type ChildProcess, spawn } from 'node:child_process';
import { ImagingError } from '../../../agent/errors.ts';

export interface ChildOptions {
  /** network namespace to run in */
  namespace?: string | undefined;
  /** every line of output as it comes; without it the output is only kept for `output()` */
  onLine?: ((line: string) => void) | undefined;
  env?: Record<string, string>;
}

/** A tool that keeps running beside us: QEMU, dnsmasq, a server. */
export interface Child {
  readonly pid: number;
  /** resolves when the process is gone, however it went */
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  isRunning(): boolean;
  /** last 64 KiB of what it printed, both streams */
  output(): string;
  /** SIGTERM, then SIGKILL after `graceMs`; resolves when it is gone */
  stop(options?: { graceMs?: number }): Promise<void>;
  /** SIGKILL at once, as a power cut would */
  kill(): Promise<void>;
}

const OUTPUT_LIMIT = 64 * 1024;

/**
 * Start a long-running tool that cannot outlive us: the kernel kills it when the thread that started
 * it ends, for whatever reason (`setpriv --pdeathsig`, util-linux), a SIGKILL of ours included.
 *
 * @throws ImagingError TOOL_FAILED if it cannot be started
 */
export const startChild = (tool: string, args: readonly string[], options: ChildOptions = {}): Child => {
  const command = [
    ...(options.namespace ? ['ip', 'netns', 'exec', options.namespace] : []),
    ...['setpriv', '--pdeathsig', 'KILL', '--', tool, ...args],
  ];
  const subprocess = spawn(command[0] as string, command.slice(1), {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...options.env, LC_ALL: 'C' },
  });
  if (subprocess.pid === undefined) {
    subprocess.once('error', () => undefined);
    throw new ImagingError('TOOL_FAILED', `Cannot start ${tool}: ${command[0]} is not installed`);
  }
  const output = collect(subprocess, options.onLine);
  let running = true;
  const ended: Child['ended'] = new Promise((resolve) => {
    subprocess.once('close', (code, signal) => {
      running = false;
      resolve({ code, signal });
    });
  });
  const kill = async (): Promise<void> => {
    if (running) subprocess.kill('SIGKILL');
    await ended;
  };
  return {
    pid: subprocess.pid,
    ended,
    output,
    kill,
    isRunning: () => running,
    stop: async ({ graceMs = 5000 } = {}) => {
      if (!running) return;
      subprocess.kill('SIGTERM');
      const timer = setTimeout(() => subprocess.kill('SIGKILL'), graceMs);
      await ended;
      clearTimeout(timer);
    },
  };
};

const collect = (subprocess: ChildProcess, onLine: ChildOptions['onLine']): (() => string) => {
  let text = '';
  for (const stream of [subprocess.stdout, subprocess.stderr]) {
    let rest = '';
    stream?.setEncoding('utf8');
    stream?.on('data', (part: string) => {
      text = (text + part).slice(-OUTPUT_LIMIT);
      const lines = (rest + part).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) onLine?.(line);
    });
    stream?.on('end', () => {
      if (rest) onLine?.(rest);
    });
  }
  return () => text;
};
