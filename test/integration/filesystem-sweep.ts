import { type FileHandle, open } from 'node:fs/promises';
import { hasCode, ImagingError } from '../../agent/errors.ts';
import { totalLength, uniteExtents } from '../../agent/filesystem/extents.ts';
import { driverFor } from '../../agent/filesystem/index.ts';
import { parsePartcloneMap } from '../../agent/filesystem/partclone-map.ts';
import type { Extent } from '../../agent/image/extent.ts';
import { run } from '../../agent/process/run.ts';
import type { FilesystemKind } from './filesystem-kinds.ts';
import { type Place, placesOf } from './filesystem-places.ts';

const MIB = 1024 * 1024;
const SECTOR = 512;

interface Mutation {
  offsets: number[];
  bytes: Buffer;
  how: string;
}

export interface SweepResult {
  /** said to be damaged, dirty or not to be trusted: kept whole or refused */
  refused: number;
  /** kept by used blocks */
  used: number;
  /** kept by used blocks, and some are missing */
  holes: string[];
}

/** mulberry32: the same numbers for the same seed, everywhere. */
export const randomOf = (seed: number): ((below: number) => number) => {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
};

/** Sectors in use that hold anything but the text of a file. */
const metadataOf = async (device: FileHandle, used: readonly Extent[]): Promise<number[]> => {
  const found: number[] = [];
  for (const { offset, length } of used) {
    for (let at = offset; at < offset + length; at += MIB) {
      const block = Buffer.alloc(Math.min(MIB, offset + length - at));
      await device.read(block, 0, block.length, at);
      for (let sector = 0; sector < block.length; sector += SECTOR) {
        if (isMetadata(block.subarray(sector, sector + SECTOR))) found.push(at + sector);
      }
    }
  }
  return found;
};

const isMetadata = (sector: Buffer): boolean => {
  const content = sector.toString('latin1').replace(/\0+$/, '');
  return content !== '' && !/^[\n\x20-\x7e]*$/.test(content);
};

/** One of the places that count, or any sector of metadata, half and half. */
const mutate = async (
  device: FileHandle,
  places: readonly Place[],
  metadata: readonly number[],
  random: (below: number) => number,
): Promise<Mutation> => {
  const sector = { offsets: [metadata[random(metadata.length)] ?? 0], length: SECTOR };
  const place = random(2) === 0 ? (places[random(places.length)] ?? sector) : sector;
  const kind = random(7);
  const length = [1, 1, 1, 4, 4, 16, 64][kind] ?? 1;
  const step = length === 4 ? 4 : 1;
  const within = Math.floor(random(Math.max(1, place.length - length)) / step) * step;
  const offsets = place.offsets.map((offset) => offset + within);
  const bytes = Buffer.alloc(length);
  await device.read(bytes, 0, length, offsets[0] ?? 0);
  const before = Buffer.from(bytes);
  const first = bytes[0] ?? 0;
  if (kind === 0) bytes[0] = first ^ (1 << random(8));
  else if (kind === 1) bytes[0] = first & ~(1 << random(8));
  else if (kind === 2) bytes[0] = random(256);
  else if (kind === 3) bytes.writeUInt32LE((bytes.readUInt32LE(0) + ([1, -1, 8, -8][random(4)] ?? 1)) >>> 0);
  else if (kind === 4) bytes.writeUInt32LE([0, 0xffffffff, random(2 ** 32), random(65536)][random(4)] ?? 0);
  else if (kind === 5) for (let at = 0; at < length; at += 1) bytes[at] = random(256);
  else bytes.fill(random(2) === 0 ? 0 : 0xff);
  if (bytes.equals(before)) bytes[0] = first ^ (1 << random(8));
  return { offsets, bytes, how: `${before.toString('hex')} -> ${bytes.toString('hex')}` };
};

/**
 * What a capture would keep; null where it would not go by used blocks. A check that hangs counts as
 * refused: it ends by its own time limit.
 */
export const usedBlocks = async (kind: FilesystemKind, device: string): Promise<Extent[] | null> => {
  const driver = driverFor(kind.type);
  if (!driver) throw new Error(`no driver for ${kind.type}`);
  const signal = AbortSignal.timeout(60_000);
  try {
    await driver.check(device, signal);
    return (await driver.usage(device, kind.size, signal)).extents;
  } catch (error) {
    if (error instanceof ImagingError && !hasCode(error, 'INTERNAL')) return null;
    throw error;
  }
};

/** partclone alone, believed or not. */
export const partcloneBlocks = async (tool: string, device: string): Promise<Extent[]> => {
  const args = ['-D', '-s', device, '-o', '-', '-L', '/dev/null', '-f', '1', '-q'];
  const { stdout, stderr } = await run(`partclone.${tool}`, args);
  return parsePartcloneMap(stdout, stderr).extents;
};

const lacks = (map: readonly Extent[], wanted: readonly Extent[], size: number): number =>
  totalLength(uniteExtents([...map, ...wanted], size)) - totalLength(map);

/**
 * Damage a filesystem `count` times, once at a time. Where it would still be captured by used blocks, none
 * may be missing that it used while it was whole, nor one that partclone sees in what it is now.
 */
export const sweep = async (
  kind: FilesystemKind,
  device: string,
  { seed, count }: { seed: number; count: number },
): Promise<SweepResult> => {
  const whole = await usedBlocks(kind, device);
  if (!whole) throw new Error(`${kind.name} is not used before any damage`);
  const random = randomOf(seed);
  const result: SweepResult = { refused: 0, used: 0, holes: [] };
  await using file = await open(device, 'r+');
  const metadata = await metadataOf(file, whole);
  const places = await placesOf(kind.tool, device);
  for (let n = 0; n < count; n += 1) {
    const { offsets, bytes, how } = await mutate(file, places, metadata, random);
    const before: Buffer[] = [];
    for (const offset of offsets) {
      const there = Buffer.alloc(bytes.length);
      await file.read(there, 0, there.length, offset);
      before.push(there);
      await file.write(bytes, 0, bytes.length, offset);
    }
    const map = await usedBlocks(kind, device);
    if (map) {
      result.used += 1;
      const missing = lacks(map, whole, kind.size);
      const beyond = lacks(map, await partcloneBlocks(kind.tool, device), kind.size);
      if (missing + beyond > 0) {
        result.holes.push(
          `${kind.name} at ${offsets} ${how}: ${missing} bytes of before, ${beyond} of partclone's`,
        );
      }
    } else result.refused += 1;
    for (const [at, offset] of offsets.entries())
      await file.write(before[at] ?? bytes, 0, bytes.length, offset);
  }
  return result;
};
