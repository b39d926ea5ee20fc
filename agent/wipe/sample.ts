import { randomInt } from 'node:crypto';
import type { ByteRange } from '../protocol/index.ts';

/** NIST SP 800-88 r1, 4.7.2: at least 1000 equal parts, in each at least two places of at least 5 % of it. */
const PARTS = 1000;
const SHARE = 0.05;
/** a disk this small is read whole: a sample of it is no quicker */
const READ_WHOLE = 128 * 1024 * 1024;
/** read at the very first and the very last address besides */
const END_BYTES = 1024 * 1024;

/**
 * Places to read back where not all is read: about a tenth of the disk, other ones every time, sorted and disjoint.
 * `align`: the disk's sector. `random(n)`: an integer from 0 to n-1, for tests.
 */
export const samplePlaces = (
  size: number,
  align: number,
  random: (below: number) => number = randomBelow,
): ByteRange[] => {
  if (size <= READ_WHOLE) return size > 0 ? [{ start: 0, size }] : [];
  const places: ByteRange[] = [{ start: 0, size: END_BYTES }];
  for (let part = 0; part < PARTS; part++) {
    const from = alignDown((size / PARTS) * part, align);
    const to = part === PARTS - 1 ? size : alignDown((size / PARTS) * (part + 1), align);
    const middle = alignDown((from + to) / 2, align);
    const length = Math.ceil(((to - from) * SHARE) / align) * align;
    // one in each half: two that cannot overlap
    for (const [start, end] of [
      [from, middle],
      [middle, to],
    ] as const) {
      places.push({ start: start + align * random((end - start - length) / align + 1), size: length });
    }
  }
  places.push({ start: size - END_BYTES, size: END_BYTES });
  return merged(places);
};

const alignDown = (value: number, align: number): number => Math.floor(value / align) * align;

/** randomInt is limited to 2^48, which is 128 PiB of sectors */
const randomBelow = (below: number): number => randomInt(Math.max(1, Math.floor(below)));

const merged = (places: readonly ByteRange[]): ByteRange[] => {
  const all: ByteRange[] = [];
  for (const { start, size } of places.toSorted((a, b) => a.start - b.start)) {
    const last = all.at(-1);
    if (last && start <= last.start + last.size) {
      last.size = Math.max(last.size, start + size - last.start);
    } else all.push({ start, size });
  }
  return all;
};
