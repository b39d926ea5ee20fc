import { readAt } from '../disk/device-io.ts';
import { run } from '../process/run.ts';
import { parseExfatBootSector, readExfatLayout } from './exfat-layout.ts';
import { uniteViews } from './extents.ts';
import type { FilesystemDriver } from './filesystem.ts';
import { partcloneMap } from './partclone-map.ts';
import { damaged, distrusted } from './verdicts.ts';

/** a full check of a large, slow disk */
const CHECK_MS = 4 * 60 * 60_000;

/** exFAT: exfatprogs and partclone.exfat. It has no resizer. */
export const exfat: FilesystemDriver = {
  types: ['exfat'],
  growable: false,

  /**
   * It has no journal, and a stick that was pulled out keeps its dirty flag for long: what counts is whether
   * fsck.exfat finds every cluster of every file marked as used.
   */
  check: async (device, signal) => {
    const boot = parseExfatBootSector(await readAt(device, 0, 512));
    if (boot.failing) throw damaged(device, 'it is marked as having failed');
    const { exitCode, stdout, stderr } = await run('fsck.exfat', ['-n', device], {
      signal,
      timeoutMs: CHECK_MS,
      okExitCodes: [0, 1, 2, 4, 8],
    });
    if (exitCode === 0 && isExfatSound(stdout)) return;
    throw damaged(device, 'fsck.exfat found damage', { exitCode, output: (stdout + stderr).slice(-2000) });
  },

  usage: async (device, size, signal) => {
    const boot = parseExfatBootSector(await readAt(device, 0, 512));
    if (boot.fats !== 1) throw distrusted(device, `it has ${boot.fats} FATs`);
    if (boot.volumeBytes > size) throw distrusted(device, `it has ${boot.volumeBytes} bytes of ${size}`);
    // partclone 0.3.23 counts two clusters more than are set, those that numbers begin with
    const map = await partcloneMap('exfat', device, size, signal, { countsMore: true });
    const own = await readExfatLayout(device, boot);
    const other = { name: 'the allocation bitmap', extents: own, tolerance: 0 };
    return { extents: uniteViews(device, map.extents, other, size), minimumBytes: boot.volumeBytes };
  },
};

/** "/dev/sda1: clean. directories 3, files 8": the last line of a check that came to its end. */
export const isExfatSound = (stdout: string): boolean => /: clean\. directories \d+, files \d+/.test(stdout);
