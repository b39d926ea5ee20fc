import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ImagingError } from '../errors.ts';
import type { Extent } from '../image/extent.ts';
import { ownFolder } from '../process/owner.ts';
import { run } from '../process/run.ts';
import { totalLength } from './extents.ts';

export interface PartcloneMap {
  extents: Extent[];
  /** what the map describes, bytes from the start; the device may be a little larger */
  covered: number;
  blockSize: number;
  /** what the superblock says is in use, bytes */
  inUse: number;
}

/** reading the metadata of a full, slow 20 TB disk */
const TIMEOUT_MS = 60 * 60_000;

/**
 * The blocks that a filesystem uses, from `partclone.<tool> --domain`. Read-only, nothing is copied.
 * Exit code 0 proves nothing (partclone 0.3.23 also gives it for a log that cannot be written), so
 * the map itself is checked: complete, inside the device, its first block used, and as much in use
 * as the superblock says.
 *
 * `tool`: extfs, fat, ntfs, xfs, btrfs, f2fs, exfat. Check the filesystem first: on damaged ones partclone
 * leaves blocks out. `countsMore`: this superblock counts what is reserved, so its number proves nothing.
 *
 * @throws ImagingError TOOL_FAILED, TOOL_TIMEOUT, TOOL_MISSING, TASK_CANCELLED
 */
export const partcloneMap = async (
  tool: string,
  device: string,
  deviceSize: number,
  signal: AbortSignal,
  { countsMore = false }: { countsMore?: boolean } = {},
): Promise<PartcloneMap> => {
  const folder = await ownFolder('partclone');
  try {
    // partclone ends when its progress thread wakes: after 2 s, with -f 1 after one; with 0 it spins for the moment a map takes
    const args = ['-D', '-s', device, '-o', '-', '-L', join(folder, 'log'), '-f', '0', '-q'];
    const { stdout, stderr } = await run(`partclone.${tool}`, args, { signal, timeoutMs: TIMEOUT_MS });
    const map = parsePartcloneMap(stdout, stderr);
    const doubt = doubtAbout(countsMore ? { ...map, inUse: 0 } : map, deviceSize);
    if (doubt) throw distrusted(device, doubt);
    return map;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
};

/**
 * The ddrescue map on standard output (`+` is used, `?` is not) and the summary on standard error.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const parsePartcloneMap = (stdout: string, stderr: string): PartcloneMap => {
  const extents: Extent[] = [];
  let position = 0;
  for (const line of stdout.split('\n')) {
    const match = /^0x([0-9A-F]+)\s+0x([0-9A-F]+)\s+([+?])\s*$/i.exec(line);
    if (!match) {
      if (line.trim() === '' || line.startsWith('#') || /^0x[0-9A-F]+\s+\?\s*$/i.test(line)) continue;
      throw distrusted('the device', `unexpected line ${JSON.stringify(line.slice(0, 100))}`);
    }
    const [offset, length] = [Number.parseInt(match[1] ?? '', 16), Number.parseInt(match[2] ?? '', 16)];
    if (offset !== position) throw distrusted('the device', `a gap or overlap at ${position}`);
    position += length;
    if (match[3] === '+') extents.push({ offset, length });
  }
  const blockSize = Number(/^Block size:\s+(\d+) Byte/m.exec(stderr)?.[1]);
  const usedBlocks = Number(/^Space in use:.*= (\d+) Blocks?/m.exec(stderr)?.[1]);
  const blocks = Number(/^Device size:.*= (\d+) Blocks?/m.exec(stderr)?.[1]);
  if (!blockSize || !Number.isFinite(usedBlocks) || !blocks) {
    throw distrusted('the device', 'no summary in its output');
  }
  if (position !== blocks * blockSize) {
    throw distrusted('the device', `it covers ${position} bytes of ${blocks * blockSize}`);
  }
  return { extents, covered: position, blockSize, inUse: usedBlocks * blockSize };
};

/** Why this map cannot be right, or null. */
const doubtAbout = (map: PartcloneMap, deviceSize: number): string | null => {
  const { extents, covered, inUse, blockSize } = map;
  if (extents.length === 0) return 'it is empty';
  if (extents[0]?.offset !== 0) return 'its first block is not used';
  if (covered > deviceSize) return `it covers ${covered} bytes of a device of ${deviceSize}`;
  const used = totalLength(extents);
  // the summary counts from the superblock: reserved and bad blocks may be counted either way
  if (used < inUse - Math.max(16 * blockSize, inUse / 1000)) {
    return `it has ${used} bytes in use, the superblock ${inUse}`;
  }
  return null;
};

const distrusted = (device: string, reason: string): ImagingError =>
  new ImagingError('TOOL_FAILED', `Cannot trust partclone's map of ${device}: ${reason}`);
