import type { Device } from '../image/device.ts';
import type { Extent } from '../image/extent.ts';
import type { ChunkPool } from '../image/pool.ts';

export interface RefineOptions {
  device: Pick<Device, 'fd' | 'align'>;
  pool: ChunkPool;
  blockSize: number;
  onRead?: () => void;
  signal: AbortSignal;
  /** for all of them, default 5 min: what is left then stays as it is, whole blocks */
  budgetMs?: number;
}

/** blocks; inside of a range that is longer nobody needs to know which sectors can still be read */
const SMALL_RANGE = 64;
/** sectors of one block that fail, each for seconds */
const BLOCK_SECONDS = 30;

/**
 * Which sectors it is in blocks that badblocks found bad. A block that can be read at the second try stays bad as a whole: it
 * failed once, or it came back with other bytes than were written.
 *
 * @throws ImagingError DISK_READ_FAILED (the device fails as a whole); the signal's reason
 */
export const refine = async (blocks: readonly Extent[], options: RefineOptions): Promise<Extent[]> => {
  const { device, pool, blockSize, onRead, signal, budgetMs = 5 * 60_000 } = options;
  if (device.align >= blockSize) return [...blocks];
  const ends = performance.now() + budgetMs;
  const sectors: Extent[] = [];
  for (const range of blocks) {
    for (let offset = range.offset; offset < range.offset + range.length; offset += blockSize) {
      signal.throwIfAborted();
      const whole: Extent = { offset, length: blockSize };
      const isEdge = offset === range.offset || offset + blockSize >= range.offset + range.length;
      const isWorth = isEdge || range.length <= SMALL_RANGE * blockSize;
      const found = isWorth && performance.now() < ends ? await unreadableIn(whole, { device, pool }) : [];
      onRead?.();
      sectors.push(...(found.length > 0 ? found : [whole]));
    }
  }
  return sectors;
};

/** The sectors of a place that cannot be read. */
export const unreadableIn = async (
  { offset: position, length }: Extent,
  { device: { fd, align }, pool }: Pick<RefineOptions, 'device' | 'pool'>,
): Promise<Extent[]> => {
  const job = { fd, align, position, length, seconds: BLOCK_SECONDS };
  return (await pool.run('probe', job)).unreadable;
};
