import { randomFillSync } from 'node:crypto';
import test from 'ava';
import { chunkId, compressFrame, openFrame } from '../../../agent/image/codec.ts';
import { chunkSizeFor } from '../../../agent/image/grid.ts';
import { frameLimit } from '../../../agent/image/limit.ts';
import { bytesOf } from './helpers.ts';

const SIZE = 256 * 1024;

for (const level of [1, 3, 12, 19]) {
  test(`noise and text come back from one frame each at level ${level}`, (t) => {
    const noise = randomFillSync(new Uint8Array(SIZE));
    // a header that compresses before a body that does not, and the reverse
    const mixed = Uint8Array.from(noise);
    mixed.fill(65, 0, SIZE / 2);
    for (const plain of [noise, mixed, bytesOf(3, SIZE), new Uint8Array(SIZE), noise.subarray(0, 5000)]) {
      const frame = new Uint8Array(frameLimit(plain.length));
      const length = compressFrame(plain, frame, level);
      t.true(length <= frame.length);
      const target = new Uint8Array(plain.length);
      t.is(openFrame(frame.subarray(0, length), target, chunkId(plain), plain.length), plain.length);
      t.true(Buffer.from(plain).equals(target));
    }
    const frame = new Uint8Array(frameLimit(SIZE));
    t.true(compressFrame(mixed, frame, level) < SIZE * 0.51, 'half of it compresses, and is compressed');
  });
}

test('the grid is 256 KiB until the index would be too large', (t) => {
  const GIB = 1024 ** 3;
  t.is(chunkSizeFor(1), 256 * 1024);
  t.is(chunkSizeFor(512 * GIB), 256 * 1024);
  t.is(chunkSizeFor(512 * GIB + 1), 512 * 1024);
  t.is(chunkSizeFor(2048 * GIB), 1024 * 1024);
  t.is(chunkSizeFor(20_000 * GIB), 16 * 1024 * 1024);
});
