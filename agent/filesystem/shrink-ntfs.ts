import { readAt } from '../disk/device-io.ts';
import { ImagingError } from '../errors.ts';
import { type RunResult, run } from '../process/run.ts';
import { type NtfsInfo, ntfs, parseNtfsBootSector, parseNtfsInfo } from './ntfs.ts';
import type { Shrinker } from './shrink.ts';

/** moving the clusters of a large volume on a slow disk */
const TOOL_MS = 12 * 60 * 60_000;

/** NTFS: ntfsresize and ntfsfix, which work on files and need no root. */
export const shrinkNtfs: Shrinker = {
  types: ['ntfs'],
  obstacle: () => null,

  shrink: async (file, size, { signal, onStep }) => {
    onStep?.('checking');
    await ntfs.check(file, signal);
    const before = await infoOf(file, false, signal);
    if (before.minimumBytes !== null && before.minimumBytes > size) {
      throw new ImagingError(
        'TARGET_TOO_SMALL',
        `Cannot make the volume smaller: it needs ${before.minimumBytes} bytes, ${size} are left for it`,
        { details: { neededBytes: before.minimumBytes, availableBytes: size } },
      );
    }

    onStep?.('moving files to the front');
    const steps = percentReader((percent) => onStep?.(`moving files to the front, ${percent} %`));
    // -f twice: no question. The size is that of the partition: the tool itself leaves the last sector of
    // it to the backup boot sector and rounds the volume down to whole clusters (ntfsresize 2022.10.3)
    // clusters that are marked bad were so on the disk of the capture
    await run('ntfsresize', ['--force', '--force', '--bad-sectors', '--size', String(size), file], {
      signal,
      timeoutMs: TOOL_MS,
      onLine: steps,
    });

    onStep?.('checking again');
    await infoOf(file, true, signal);
    // ntfsresize marks the volume for chkdsk as a precaution; it was clean before, and its accounting of every
    // cluster has just been repeated
    await run('ntfsfix', ['--clear-dirty', file], { signal, timeoutMs: TOOL_MS });
    await ntfs.check(file, signal);
    await requireBootSectors(file, size);
  },
};

/** `ntfsresize --info` accounts every cluster; `marked`: also of a volume that waits for chkdsk. */
const infoOf = async (file: string, marked: boolean, signal: AbortSignal): Promise<NtfsInfo> => {
  const args = ['--info', '--bad-sectors', '--no-progress-bar', ...(marked ? ['--force'] : []), file];
  const result = await run('ntfsresize', args, { signal, timeoutMs: TOOL_MS, okExitCodes: [0, 1] });
  const info = parseNtfsInfo(result.stdout);
  if (/Volume is full/.test(result.stdout + result.stderr) && info) return { ...info, minimumBytes: null };
  if (result.exitCode !== 0 || info === null) throw damaged(file, result);
  return info;
};

/** The volume ends before the partition's last sector, and that sector is the copy of the first. */
const requireBootSectors = async (file: string, size: number): Promise<void> => {
  const first = await readAt(file, 0, 512);
  const { volumeBytes } = parseNtfsBootSector(first);
  const sectorBytes = first.readUInt16LE(11);
  const backup = await readAt(file, size - sectorBytes, 512);
  if (volumeBytes <= size - sectorBytes && backup.equals(first)) return;
  throw new ImagingError(
    'FILESYSTEM_CHECK_FAILED',
    `Cannot trust the volume: after it was made smaller it has ${volumeBytes} bytes of ${size}, and its last sector ${backup.equals(first) ? 'is' : 'is not'} the backup boot sector`,
    { details: { file, volumeBytes, size } },
  );
};

/** "12.34 percent completed" -> each whole percent once */
const percentReader = (tell: (percent: number) => void): ((line: string) => void) => {
  let last = -1;
  return (line) => {
    const percent = Math.floor(Number(/([\d.]+) percent completed/.exec(line)?.[1]));
    if (!Number.isFinite(percent) || percent === last) return;
    last = percent;
    tell(percent);
  };
};

const damaged = (file: string, { exitCode, stdout, stderr }: RunResult): ImagingError =>
  new ImagingError('FILESYSTEM_CHECK_FAILED', 'Cannot trust the volume: ntfsresize found it inconsistent', {
    details: { file, exitCode, output: (stdout + stderr).slice(-2000) },
  });
