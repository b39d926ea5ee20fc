import { randomBytes } from 'node:crypto';
import type { ByteRange } from '../protocol/index.ts';

export type WipeMode = 'fast' | 'normal' | 'full';

/** What is written once over some ranges of a disk. */
export interface Pass {
  /** from 1 */
  number: number;
  /** 32 bytes as hex for the stream of pattern.ts, null for zeros */
  key: string | null;
  ranges: ByteRange[];
}

/** What a fast wipe overwrites at each end: tables, boot code, most superblocks, and the backup GPT. */
export const EDGE_BYTES = 40 * 1024 * 1024;

/** Random passes of a full wipe that names no number. */
export const FULL_PASSES = 3;

/** The passes over a disk of `size` bytes, in order. Pure but for the keys, which are new for every pass. */
export const planPasses = (
  mode: WipeMode,
  size: number,
  options: { passes?: number; newKey?: () => string } = {},
): Pass[] => {
  const { passes = FULL_PASSES, newKey = () => randomBytes(32).toString('hex') } = options;
  if (mode === 'fast') return [{ number: 1, key: null, ranges: edges(size) }];
  const count = mode === 'normal' ? 1 : passes;
  return Array.from({ length: count }, (_, at) => ({
    number: at + 1,
    key: newKey(),
    ranges: [{ start: 0, size }],
  }));
};

const edges = (size: number): ByteRange[] =>
  size <= 2 * EDGE_BYTES
    ? [{ start: 0, size }]
    : [
        { start: 0, size: EDGE_BYTES },
        { start: size - EDGE_BYTES, size: EDGE_BYTES },
      ];

export const bytesOf = (ranges: readonly ByteRange[]): number =>
  ranges.reduce((sum, { size }) => sum + size, 0);

/** The pieces of at most `block` bytes that these ranges are worked through in, on multiples of `block` where they can be. */
export function* blocksOf(ranges: readonly ByteRange[], block: number): Generator<ByteRange> {
  for (const { start, size } of ranges) {
    const end = start + size;
    for (let at = start; at < end; ) {
      const next = Math.min(end, (Math.floor(at / block) + 1) * block);
      yield { start: at, size: next - at };
      at = next;
    }
  }
}
