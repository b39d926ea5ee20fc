import type { Device } from '../image/device.ts';
import type { Extent } from '../image/extent.ts';
import type { ChunkPool } from '../image/pool.ts';
import { LATENCY_CELLS, type LatencyMap } from '../protocol/index.ts';

export interface LatencyOptions {
  device: Pick<Device, 'fd' | 'align'>;
  pool: ChunkPool;
  /** of the disk, bytes */
  size: number;
  /** places that are known to be bad: reading them again takes time and tells nothing */
  bad: readonly Extent[];
  onRead?: () => void;
  signal: AbortSignal;
  /** how long it may take all together, default 60 s: a sick disk does not get through */
  budgetMs?: number;
  random?: () => number;
}

/** one read: what a system reads at a time, so that the way to the place counts and not the transfer */
const READ_BYTES = 65_536;
/** single reads in each cell; all of them take a hard disk about a minute, an SSD a second */
const ROUNDS = 16;
/** what one place may take; the kernel's own limit for a command is 30 s */
const PLACE_SECONDS = 10;

/** The parts of a disk that a map tells apart, at most 256 of equal size. */
export const latencyCells = (size: number): { cellBytes: number; count: number } => {
  const cellBytes = Math.max(READ_BYTES, Math.ceil(size / LATENCY_CELLS / READ_BYTES) * READ_BYTES);
  return { cellBytes, count: Math.ceil(size / cellBytes) };
};

/**
 * How long single reads take, one at a time, past the page cache, at random places of each part of the disk, in an order that
 * jumps: what is left of a budget that runs out is spread over the disk. `unreadable` is what failed meanwhile.
 *
 * @throws ImagingError DISK_READ_FAILED (the device fails as a whole); the signal's reason
 */
export const mapLatency = async (
  options: LatencyOptions,
): Promise<{ map: LatencyMap; unreadable: Extent[] }> => {
  const { device, pool, size, bad, signal, budgetMs = 60_000 } = options;
  const { random = Math.random, onRead } = options;
  const { cellBytes, count } = latencyCells(size);
  // a small disk is not read twice for this
  const rounds = Math.max(1, Math.min(ROUNDS, Math.floor(size / 8 / (count * READ_BYTES))));
  const sums = Array.from({ length: count }, () => ({ reads: 0, total: 0, most: 0 }));
  const unreadable: Extent[] = [];
  const ends = performance.now() + budgetMs;
  const step = Math.max(4096, device.align);
  for (let at = 0; at < rounds * count && performance.now() < ends; at++) {
    const cell = jumping(at, count);
    const start = cell * cellBytes;
    const room = Math.min(cellBytes, size - start);
    const length = Math.floor(Math.min(READ_BYTES, room) / device.align) * device.align;
    const position = start + Math.floor((random() * (room - length + 1)) / step) * step;
    if (length === 0 || bad.some((piece) => overlaps(piece, position, length))) continue;
    signal.throwIfAborted();
    const place = { fd: device.fd, align: device.align, position, length, seconds: PLACE_SECONDS };
    const read = await pool.run('probe', place);
    unreadable.push(...read.unreadable);
    onRead?.();
    const sum = sums[cell];
    if (!sum) continue;
    sum.reads += 1;
    sum.total += read.ms;
    sum.most = Math.max(sum.most, read.ms);
  }
  return { map: mapOf(sums, cellBytes), unreadable };
};

const mapOf = (
  sums: readonly { reads: number; total: number; most: number }[],
  cellBytes: number,
): LatencyMap => {
  const timesOf = ({ reads, total, most }: { reads: number; total: number; most: number }) => ({
    reads,
    meanMs: reads > 0 ? rounded(total / reads) : null,
    maxMs: reads > 0 ? rounded(most) : null,
  });
  const all = sums.reduce(
    (whole, { reads, total, most }) => ({
      ...{ reads: whole.reads + reads, total: whole.total + total, most: Math.max(whole.most, most) },
    }),
    { reads: 0, total: 0, most: 0 },
  );
  return { cellBytes, readBytes: READ_BYTES, cells: sums.map(timesOf), ...timesOf(all) };
};

/** microseconds are enough */
const rounded = (ms: number): number => Math.round(ms * 1000) / 1000;

/** Every cell once in `count` turns, neighbours far apart: steps of the golden section, made coprime. */
const jumping = (turn: number, count: number): number => {
  let stride = Math.max(1, Math.round(count * 0.618));
  while (divisor(stride, count) !== 1) stride += 1;
  return (turn * stride) % count;
};

const divisor = (a: number, b: number): number => (b === 0 ? a : divisor(b, a % b));

const overlaps = ({ offset, length }: Extent, position: number, size: number): boolean =>
  position < offset + length && offset < position + size;
