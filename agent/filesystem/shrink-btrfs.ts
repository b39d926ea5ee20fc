import { fileURLToPath } from 'node:url';
import { ImagingError } from '../errors.ts';
import { type RunResult, run } from '../process/run.ts';
import type { Shrinker } from './shrink.ts';

/** Linux refuses to make one smaller than this with EINVAL (fs/btrfs/ioctl.c) */
const LEAST = 256 * 1024 * 1024;
const TOOL_MS = 12 * 60 * 60_000;
const HELPER = fileURLToPath(new URL('./shrink-btrfs-mounted.ts', import.meta.url));

/**
 * btrfs moves its data only while it is mounted. The mount happens in a process of its own that does nothing
 * else (shrink-btrfs-mounted.ts), in a mount namespace of its own: however that process ends, kernel and
 * loop driver undo the mount with it.
 */
export const shrinkBtrfs: Shrinker = {
  types: ['btrfs'],
  obstacle: () =>
    process.getuid?.() === 0 ? null : 'which only a server that runs as root can make smaller (it mounts it)',

  shrink: async (file, size, { signal, onStep }) => {
    if (size < LEAST) throw tooSmall(size, `no btrfs is smaller than ${LEAST} bytes`, { neededBytes: LEAST });
    onStep?.('checking');
    await check(file, 'before it was made smaller', signal);
    onStep?.('moving data to the front');
    const args = ['--mount', '--propagation', 'private', process.execPath, HELPER, file, String(size)];
    const { exitCode, stdout, stderr } = await run('unshare', args, {
      signal,
      timeoutMs: TOOL_MS,
      okExitCodes: [0, 1],
    });
    if (exitCode !== 0) {
      const said = (stdout + stderr).trim().slice(-2000);
      if (/No space left on device/.test(said)) {
        throw tooSmall(size, `its data does not fit ${size} bytes`, { output: said });
      }
      throw new ImagingError(
        'TOOL_FAILED',
        `Cannot make the filesystem smaller: ${said.split('\n').at(-1)}`,
        {
          details: { output: said },
        },
      );
    }
    onStep?.('checking again');
    await check(file, 'after it was made smaller', signal);
    const total = await totalBytes(file, signal);
    if (total <= size) return;
    throw new ImagingError(
      'TOOL_FAILED',
      `Cannot make the filesystem smaller: btrfs left it at ${total} bytes instead of ${size}`,
    );
  },
};

const check = async (file: string, when: string, signal: AbortSignal): Promise<void> => {
  const result = await run('btrfs', ['check', '--readonly', file], {
    signal,
    timeoutMs: TOOL_MS,
    okExitCodes: [0, 1],
  });
  if (result.exitCode !== 0) throw damaged(file, when, result);
};

const totalBytes = async (file: string, signal: AbortSignal): Promise<number> => {
  const { stdout } = await run('btrfs', ['inspect-internal', 'dump-super', file], { signal });
  const total = /^total_bytes\s+(\d+)$/m.exec(stdout)?.[1];
  if (total === undefined)
    throw new ImagingError('TOOL_FAILED', 'Cannot read the superblock: no total_bytes');
  return Number(total);
};

const tooSmall = (size: number, reason: string, details: Record<string, unknown>): ImagingError =>
  new ImagingError('TARGET_TOO_SMALL', `Cannot make the filesystem smaller: ${reason}`, {
    details: { availableBytes: size, ...details },
  });

const damaged = (file: string, when: string, { exitCode, stdout, stderr }: RunResult): ImagingError =>
  new ImagingError('FILESYSTEM_CHECK_FAILED', `Cannot trust the filesystem: btrfs found damage ${when}`, {
    details: { file, exitCode, output: (stdout + stderr).slice(-2000) },
  });
