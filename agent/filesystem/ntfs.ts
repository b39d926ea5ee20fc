import { readAt } from '../disk/device-io.ts';
import { ImagingError } from '../errors.ts';
import type { Extent } from '../image/extent.ts';
import { type RunResult, run } from '../process/run.ts';
import { deviceSize } from './device-size.ts';
import { uniteExtents } from './extents.ts';
import type { FilesystemDriver } from './filesystem.ts';
import { writeNtfsBackup } from './hidden-sectors.ts';
import { partcloneMap } from './partclone-map.ts';
import { dirty } from './verdicts.ts';

const CHECK_MS = 4 * 60 * 60_000;
const MIB = 1024 * 1024;

/** NTFS: ntfs-3g's tools and partclone.ntfs. */
export const ntfs: FilesystemDriver = {
  types: ['ntfs'],
  growable: true,

  check: async (device, signal) => {
    await probeState(device, signal);
    await readInfo(device, false, signal);
  },

  usage: async (device, size, signal) => {
    const { extents } = await partcloneMap('ntfs', device, size, signal);
    const tail = await tailOf(device, size);
    const { minimumBytes } = await readInfo(device, false, signal);
    return { extents: uniteExtents([...extents, ...tail], size), minimumBytes };
  },

  /**
   * ntfsresize marks the volume for a check by Windows, whatever it found. Once its own accounting of
   * every cluster is right at the new size, the mark is taken off (ntfsfix), or the first start of each
   * deployed machine would be a chkdsk.
   */
  grow: async (device, signal) => {
    // -f twice: no question, and go on where an interrupted deploy had set the mark already
    const force = ['--force', '--force', '--bad-sectors', '--no-progress-bar'];
    await run('ntfsresize', [...force, device], { signal, timeoutMs: CHECK_MS });
    const { volumeBytes } = await readInfo(device, true, signal);
    const size = await deviceSize(device, signal);
    // one sector is the backup boot sector's, the rest less than a cluster (2 MiB at most)
    if (size - volumeBytes > 2 * MIB + 4096) {
      throw new ImagingError(
        'FILESYSTEM_CHECK_FAILED',
        `Cannot grow ${device}: the filesystem has ${volumeBytes} bytes of ${size}`,
      );
    }
    await run('ntfsfix', ['--clear-dirty', device], { signal, timeoutMs: CHECK_MS });
    await writeNtfsBackup(device, signal);
    await probeState(device, signal);
    await readInfo(device, false, signal);
  },
};

const HIBERNATED =
  'Windows is hibernated or was shut down with fast startup; run in Windows: shutdown /s /f /t 0';
const UNCLEAN = 'it was not unmounted cleanly; run in Windows: chkdsk /f on this volume, then restart twice';

/**
 * ntfs-3g.probe asks whether the volume could be mounted for writing, without mounting it: finds
 * hibernation and an unfinished log. Exit codes: ntfs-3g.probe(8).
 */
const probeState = async (device: string, signal: AbortSignal): Promise<void> => {
  const okExitCodes = [0, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22];
  const { exitCode, stdout, stderr } = await run('ntfs-3g.probe', ['--readwrite', device], {
    signal,
    okExitCodes,
  });
  if (exitCode === 0) return;
  if (exitCode === 14) throw dirty(device, HIBERNATED);
  if (exitCode === 15) throw dirty(device, UNCLEAN);
  throw damaged(device, `ntfs-3g.probe ends with ${exitCode}`, { exitCode, stdout, stderr });
};

/**
 * `ntfsresize --info` accounts every cluster against the bitmap (a real check) and tells sizes. It
 * does not write. `marked`: accept a volume that waits for Windows' check.
 */
const readInfo = async (device: string, marked: boolean, signal: AbortSignal): Promise<NtfsInfo> => {
  // clusters marked bad are no inconsistency; whether they can be read shows when they are
  const args = ['--info', '--bad-sectors', '--no-progress-bar', ...(marked ? ['--force'] : []), device];
  const result = await run('ntfsresize', args, { signal, timeoutMs: CHECK_MS, okExitCodes: [0, 1] });
  const said = result.stdout + result.stderr;
  if (/scheduled for check/.test(said)) throw dirty(device, UNCLEAN);
  const info = parseNtfsInfo(result.stdout);
  // a volume without free space cannot be shrunk, which is no damage
  const full = /Volume is full/.test(said);
  if ((result.exitCode !== 0 && !full) || info === null) {
    throw damaged(device, 'ntfsresize found it inconsistent', result);
  }
  return full ? { ...info, minimumBytes: null } : info;
};

export interface NtfsInfo {
  volumeBytes: number;
  minimumBytes: number | null;
}

/** Null where the check did not come to its end. */
export const parseNtfsInfo = (stdout: string): NtfsInfo | null => {
  const volume = /^Current volume size:\s*(\d+) bytes/m.exec(stdout)?.[1];
  if (volume === undefined || !/^Space in use\s*:/m.test(stdout)) return null;
  const minimum = /^You might resize at (\d+) bytes/m.exec(stdout)?.[1];
  return { volumeBytes: Number(volume), minimumBytes: minimum === undefined ? null : Number(minimum) };
};

/**
 * What lies behind the last cluster that partclone knows: the backup boot sector, which is not part
 * of the volume. Where the partition is larger than its filesystem, only the two places where that
 * sector may be: right behind the volume, and the end of the partition.
 */
const tailOf = async (device: string, size: number): Promise<Extent[]> => {
  const { volumeBytes, clusterBytes } = parseNtfsBootSector(await readAt(device, 0, 512));
  const start = Math.floor(volumeBytes / clusterBytes) * clusterBytes;
  if (start > size)
    throw damaged(device, `its volume of ${volumeBytes} bytes is larger than the partition`, null);
  if (size - start <= 2 * MIB) return [{ offset: start, length: size - start }];
  return [
    { offset: start, length: MIB },
    { offset: size - MIB, length: MIB },
  ];
};

/**
 * BIOS parameter block of NTFS: bytes a sector at 11, sectors a cluster at 13 (above 0x80 a negative
 * power of two), sectors of the volume at 40.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const parseNtfsBootSector = (sector: Buffer): { volumeBytes: number; clusterBytes: number } => {
  const sectorBytes = sector.readUInt16LE(11);
  const code = sector.readUInt8(13);
  const clusterBytes = sectorBytes * (code > 0x80 ? 2 ** (256 - code) : code);
  const volumeBytes = Number(sector.readBigUInt64LE(40)) * sectorBytes;
  if (sector.toString('latin1', 3, 11) !== 'NTFS    ' || clusterBytes === 0 || volumeBytes === 0) {
    throw new ImagingError('TOOL_FAILED', 'Cannot read the NTFS boot sector: it is not one');
  }
  return { volumeBytes, clusterBytes };
};

const damaged = (device: string, reason: string, output: RunResult | null): ImagingError =>
  new ImagingError(
    'FILESYSTEM_CHECK_FAILED',
    `Cannot trust ${device}: ${reason}; run in Windows: chkdsk /f on this volume`,
    { details: { device, output: output ? (output.stdout + output.stderr).slice(-2000) : '' } },
  );
