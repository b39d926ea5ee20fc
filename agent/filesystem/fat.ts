import { readAt } from '../disk/device-io.ts';
import { ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';
import { totalLength, uniteViews } from './extents.ts';
import { parseFatBootSector, readFatLayout } from './fat-layout.ts';
import type { FilesystemDriver } from './filesystem.ts';
import { partcloneMap } from './partclone-map.ts';
import { distrusted } from './verdicts.ts';

const CHECK_MS = 60 * 60_000;

/**
 * FAT12, FAT16, FAT32: dosfstools and partclone.fat. Not grown: what is FAT on a system disk (the EFI
 * system partition) must keep its size, and FAT has no resizer that can be trusted.
 */
export const fat: FilesystemDriver = {
  types: ['vfat'],
  growable: false,

  /** On damaged FAT partclone leaves blocks out and exits with 0 (26 of 30 fuzzed ones), so nothing less than clean will do. */
  /** On damaged FAT partclone leaves blocks out and exits with 0 (26 of 30 fuzzed ones), so nothing less than clean will do. */
  check: async (device, signal) => {
    await countClusters(device, signal);
  },

  usage: async (device, size, signal) => {
    const geometry = parseFatBootSector(await readAt(device, 0, 512));
    const { volumeBytes, bits, dataOffset, clusterBytes } = geometry;
    if (volumeBytes > size) throw distrusted(device, `its FAT has ${volumeBytes} bytes of ${size}`);
    const map = await partcloneMap('fat', device, size, signal);
    const extents = await readFatLayout(device, geometry);
    if (bits === 12) {
      // partclone 0.3.23 misses a quarter of a FAT12's clusters; such volumes are small enough to count twice
      const counted = dataOffset + (await countClusters(device, signal)) * clusterBytes;
      if (totalLength(extents) !== counted) throw distrusted(device, 'fsck.fat counts other clusters');
    }
    const other = { name: 'the FAT', extents, tolerance: bits === 12 ? size : 0 };
    return { extents: uniteViews(device, map.extents, other, size), minimumBytes: volumeBytes };
  },
};

/** The clusters in use that fsck.fat counts, if it finds nothing to mend. */
const countClusters = async (device: string, signal: AbortSignal): Promise<number> => {
  const { exitCode, stdout, stderr } = await run('fsck.fat', ['-n', device], {
    signal,
    timeoutMs: CHECK_MS,
    okExitCodes: [0, 1, 2],
  });
  // "12 files, 3/261372 clusters": the last line of a check that came to its end
  const clusters = /\d+ files?, (\d+)\/\d+ clusters/.exec(stdout)?.[1];
  if (exitCode === 0 && clusters !== undefined) return Number(clusters);
  const reason = /Dirty bit is set/.test(stdout) ? 'it was not unmounted cleanly' : 'fsck.fat found damage';
  throw new ImagingError('FILESYSTEM_CHECK_FAILED', `Cannot trust ${device}: ${reason}`, {
    details: { device, exitCode, output: (stdout + stderr).slice(-2000) },
  });
};
