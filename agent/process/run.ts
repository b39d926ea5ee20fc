import { channel } from 'node:diagnostics_channel';
import { execa } from 'execa';
import { ImagingError } from '../errors.ts';
import { watchGroup } from './group.ts';
import { OWNER_VARIABLE, ownMark } from './owner.ts';

export interface RunOptions {
  /** sent to the tool's standard input */
  input?: string | Uint8Array;
  /** default 60 s; a tool that can hang must not hang the task. 0: no limit, for what runs as long as we do */
  timeoutMs?: number;
  signal?: AbortSignal;
  /** exit codes that are answers, not failures (e2fsck's 1, grep's 1) */
  okExitCodes?: readonly number[];
  /** from SIGTERM to SIGKILL, default 2 s: for a tool that first has to put things back */
  patienceMs?: number;
  /** every line as it comes, split at newline, carriage return or backspace (progress bars) */
  onLine?: (line: string, from: 'stdout' | 'stderr') => void;
  /** false for bulk output that only `onLine` reads */
  keepOutput?: boolean;
  env?: Record<string, string>;
}

export interface RunResult {
  stdout: string;
  stderr: string;
  exitCode: number;
}

/** What `toolEnds` tells. No secrets: they never stand in a tool's arguments. */
export interface ToolEnd {
  tool: string;
  args: readonly string[];
  seconds: number;
  /** null: never started, or killed */
  exitCode: number | null;
}

/** Told of every tool that has ended: for the log bundle, which must show where a task's time went. */
export const toolEnds = channel('fog:tool');

const DEFAULT_TIMEOUT_MS = 60_000;
const MAX_OUTPUT = 64 * 1024 * 1024;
/** what remains of the environment: a secret of ours must not reach a tool */
const PASSED_ON = ['PATH', 'HOME', 'TERM', 'TMPDIR'];

/**
 * Run a tool to its end, with a time limit and a clean environment in the C locale. An argument
 * vector only: nothing here is ever parsed by a shell.
 *
 * @throws ImagingError TOOL_MISSING, TOOL_FAILED (exit code, signal, last output in `details`),
 *   TOOL_TIMEOUT, TASK_CANCELLED (the signal was aborted)
 */
export const run = async (
  tool: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> => {
  const { timeoutMs = DEFAULT_TIMEOUT_MS, okExitCodes = [0], keepOutput = true } = options;
  if (options.signal?.aborted) throw cancelled(tool, options.signal);
  const started = performance.now();
  const subprocess = execa(tool, args, {
    env: { ...passedOn(), ...options.env, LC_ALL: 'C', [OWNER_VARIABLE]: ownMark() },
    extendEnv: false,
    reject: false,
    // a process group of its own, which ends as a whole: what a tool started holds its output open otherwise
    detached: true,
    maxBuffer: MAX_OUTPUT,
    buffer: keepOutput,
    stripFinalNewline: false,
    ...(options.input === undefined ? { stdin: 'ignore' } : { input: options.input }),
  });
  using group = watchGroup(subprocess, timeoutMs, options.signal, options.patienceMs);
  if (options.onLine) {
    onLines(subprocess.stdout, (line) => options.onLine?.(line, 'stdout'));
    onLines(subprocess.stderr, (line) => options.onLine?.(line, 'stderr'));
  } else if (!keepOutput) {
    subprocess.stdout?.resume();
    subprocess.stderr?.resume();
  }
  const result = await subprocess;
  const seconds = (performance.now() - started) / 1000;
  toolEnds.publish({ tool, args, seconds, exitCode: result.exitCode ?? null } satisfies ToolEnd);
  const stdout = String(result.stdout ?? '');
  const stderr = String(result.stderr ?? '');
  if (group.ended === 'cancelled') throw cancelled(tool, options.signal);
  if (group.ended === 'timeout') {
    throw new ImagingError('TOOL_TIMEOUT', `Cannot finish ${tool}: no end after ${timeoutMs / 1000} s`, {
      details: { command: [tool, ...args], stderr: tail(stderr) },
    });
  }
  if (result.exitCode === undefined && result.code === 'ENOENT') {
    throw new ImagingError('TOOL_MISSING', `Cannot run ${tool}: not installed`, { details: { tool } });
  }
  if (result.exitCode === undefined || !okExitCodes.includes(result.exitCode)) {
    const how = result.signal ? `killed by ${result.signal}` : `exit code ${result.exitCode ?? result.code}`;
    const said = lastLine(stderr) || lastLine(stdout);
    throw new ImagingError('TOOL_FAILED', `Cannot run ${tool}: ${how}${said ? ` (${said})` : ''}`, {
      details: {
        command: [tool, ...args],
        exitCode: result.exitCode ?? null,
        stderr: tail(stderr),
        stdout: tail(stdout),
      },
      // execa's result carries the input, which may be a key
      ...(options.input === undefined ? { cause: result } : {}),
    });
  }
  return { stdout, stderr, exitCode: result.exitCode };
};

const passedOn = (): Record<string, string> =>
  Object.fromEntries(PASSED_ON.flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : [])));

const cancelled = (tool: string, signal: AbortSignal | undefined): ImagingError =>
  new ImagingError('TASK_CANCELLED', `Cannot finish ${tool}: cancelled`, { cause: signal?.reason });

const onLines = (stream: NodeJS.ReadableStream | null, onLine: (line: string) => void): void => {
  if (!stream) return;
  let rest = '';
  stream.setEncoding('utf8');
  stream.on('data', (text: string) => {
    const parts = (rest + text).split(/[\r\n\b]+/);
    rest = (parts.pop() ?? '').slice(-65536);
    for (const part of parts) if (part) onLine(part);
  });
  stream.on('end', () => {
    if (rest) onLine(rest);
  });
};

const tail = (text: string): string => text.slice(-4096);
const lastLine = (text: string): string =>
  text
    .trimEnd()
    .split(/[\r\n]/)
    .at(-1)
    ?.trim()
    .slice(0, 300) ?? '';
