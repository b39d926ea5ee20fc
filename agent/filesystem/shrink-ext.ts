import { ImagingError } from '../errors.ts';
import { type RunResult, run } from '../process/run.ts';
import { parseDumpe2fs } from './ext.ts';
import type { Shrinker } from './shrink.ts';

/** a large filesystem on a slow disk */
const TOOL_MS = 12 * 60 * 60_000;
const SECTOR = 512;

/** ext2, ext3, ext4: e2fsck and resize2fs, which work on files and need no root. */
export const shrinkExt: Shrinker = {
  types: ['ext2', 'ext3', 'ext4'],
  obstacle: () => null,

  shrink: async (file, size, { signal, onStep }) => {
    onStep?.('checking');
    const neededBytes = await measureExt(file, signal);
    if (neededBytes > size) throw tooSmall(neededBytes, size);

    onStep?.('moving files to the front');
    await run('resize2fs', [file, `${Math.floor(size / SECTOR)}s`], { signal, timeoutMs: TOOL_MS });

    onStep?.('checking again');
    const after = await run('e2fsck', ['-f', '-n', file], {
      signal,
      timeoutMs: TOOL_MS,
      okExitCodes: [0, 4, 8, 12],
    });
    if (after.exitCode !== 0) throw damaged(file, 'after it was made smaller', after);
    const { blocks, blockSize } = await superblockOf(file, signal);
    if (blocks * blockSize <= size) return;
    throw new ImagingError(
      'TOOL_FAILED',
      `Cannot make the filesystem smaller: resize2fs left it at ${blocks * blockSize} bytes instead of ${size}`,
    );
  },
};

/**
 * `resize2fs -P` of the filesystem as it is now, behind the full check that it insists on: what was recorded at
 * capture may be another version's estimate. Bytes; 0 where the tool does not tell.
 *
 * @throws ImagingError FILESYSTEM_CHECK_FAILED, TOOL_FAILED
 */
export const measureExt = async (file: string, signal: AbortSignal): Promise<number> => {
  // 1 is "corrected"
  const before = await run('e2fsck', ['-f', '-p', file], {
    signal,
    timeoutMs: TOOL_MS,
    okExitCodes: [0, 1, 2, 4],
  });
  if (before.exitCode > 1) throw damaged(file, 'before it was made smaller', before);
  const { stdout } = await run('resize2fs', ['-P', file], { signal, timeoutMs: TOOL_MS });
  const blocks = /minimum size of the filesystem: (\d+)/.exec(stdout)?.[1];
  const { blockSize } = await superblockOf(file, signal);
  return blocks === undefined ? 0 : Number(blocks) * blockSize;
};

const tooSmall = (neededBytes: number, size: number): ImagingError =>
  new ImagingError(
    'TARGET_TOO_SMALL',
    `Cannot make the filesystem smaller: it needs ${neededBytes} bytes, ${size} are left for it`,
    { details: { neededBytes, availableBytes: size } },
  );

const superblockOf = async (file: string, signal: AbortSignal) =>
  parseDumpe2fs((await run('dumpe2fs', ['-h', file], { signal })).stdout);

const damaged = (file: string, when: string, { exitCode, stdout, stderr }: RunResult): ImagingError =>
  new ImagingError('FILESYSTEM_CHECK_FAILED', `Cannot trust the filesystem: e2fsck found damage ${when}`, {
    details: { file, exitCode, output: (stdout + stderr).slice(-2000) },
  });
