import { hasCode, ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';
import type { SurfaceMode } from '../protocol/index.ts';
import type { BlockPlan } from './block-plan.ts';

export interface BadblocksOptions {
  path: string;
  mode: SurfaceMode;
  plan: BlockPlan;
  /** the tool's own progress, 0..1, once a second while the disk answers */
  onShare: (share: number) => void;
  /** number of a block, the moment it was found */
  onBad: (block: number) => void;
  signal: AbortSignal;
}

export interface BadblocksEnd {
  /** it gave up behind MOST_BAD_BLOCKS: what lies behind the share that it told last was not tested */
  stoppedEarly: boolean;
}

/** a disk with that many blocks that fail needs no further proof, and trying each takes seconds */
export const MOST_BAD_BLOCKS = 100_000;
/** on SIGTERM in read-write mode badblocks first writes back what it was testing */
export const PUT_BACK_MS = 60_000;

/**
 * badblocks over all whole blocks of a disk: read-only, or with -n, which puts every block's content back. It ends with this process,
 * also when that is killed (setpriv --pdeathsig), and then still puts back what it was testing.
 *
 * @throws ImagingError TOOL_FAILED (it could not test, or did not come to its end), TOOL_MISSING, TASK_CANCELLED
 */
export const runBadblocks = async (options: BadblocksOptions): Promise<BadblocksEnd> => {
  const { path, mode, plan, signal } = options;
  const args = [
    ...['--pdeathsig', 'TERM', 'badblocks', '-s', '-v', ...(mode === 'read-write' ? ['-n'] : [])],
    ...['-b', String(plan.blockSize), '-c', String(plan.atOnce), '-e', String(MOST_BAD_BLOCKS)],
    ...[path, String(plan.blocks - 1)],
  ];
  let share = 0;
  let isComplete = false;
  let stoppedEarly = false;
  let said = '';
  const onStderr = (line: string): void => {
    const told = parseBadblocks(line);
    if (told.kind === 'share') {
      share = Math.max(share, told.share);
      options.onShare(share);
    } else if (told.kind === 'completed') isComplete = true;
    else if (told.kind === 'too many') stoppedEarly = true;
    else if (line.trim()) said = line.trim().slice(0, 300);
  };
  const onStdout = (line: string): void => {
    if (!/^\d{1,10}$/.test(line)) return;
    share = Math.max(share, (Number(line) + 1) / plan.blocks);
    options.onBad(Number(line));
  };
  try {
    await run('setpriv', args, {
      ...{ signal, timeoutMs: 0, keepOutput: false },
      ...(mode === 'read-write' ? { patienceMs: PUT_BACK_MS } : {}),
      onLine: (line, from) => (from === 'stdout' ? onStdout(line) : onStderr(line)),
    });
  } catch (error) {
    if (!hasCode(error, 'TOOL_FAILED')) throw error;
    throw failed(path, said || 'it ended with an error', error);
  }
  if (!isComplete) throw failed(path, said || 'it did not come to its end');
  options.onShare(stoppedEarly ? share : 1);
  return { stoppedEarly };
};

const failed = (path: string, reason: string, cause?: unknown): ImagingError =>
  new ImagingError('TOOL_FAILED', `Cannot test ${path}: badblocks: ${reason}`, { details: { path }, cause });

type Told =
  | { kind: 'share'; share: number }
  | { kind: 'completed' }
  | { kind: 'too many' }
  | { kind: 'other' };

/**
 * One piece of what badblocks says on standard error, where it draws its progress over itself with backspaces (e2fsprogs 1.47):
 * ` 62.50% done, 0:01 elapsed. (16/0/0 errors)`, errors in reading, writing and comparing.
 */
export const parseBadblocks = (text: string): Told => {
  const percent = /(\d{1,3}\.\d+)% done, [\d:]+ elapsed/.exec(text)?.[1];
  if (percent !== undefined) return { kind: 'share', share: Math.min(1, Number(percent) / 100) };
  if (/^Pass completed, \d+ bad blocks found/.test(text)) return { kind: 'completed' };
  if (text.startsWith('Too many bad blocks')) return { kind: 'too many' };
  return { kind: 'other' };
};
