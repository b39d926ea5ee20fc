import { hash } from 'node:crypto';
import test from 'ava';
import fc from 'fast-check';
import { isImagingError } from '../../../agent/errors.ts';
import { decodeCaibx, encodeCaibx } from '../../../agent/image/caibx.ts';

const idOf = (number: number): string => hash('sha256', String(number));
const sample = (chunks: number) => ({
  chunkSize: 65536,
  size: (chunks - 1) * 65536 + 512,
  ids: Array.from({ length: chunks }, (_, number) => idOf(number)),
});

test('an index comes back as it was written', (t) => {
  fc.assert(
    fc.property(
      fc.constantFrom(4096, 65536, 1048576, 1000448, 16777216),
      fc.integer({ min: 1, max: 200 }),
      fc.integer({ min: 1, max: 4096 }),
      (chunkSize, chunks, rest) => {
        const index = {
          chunkSize,
          size: (chunks - 1) * chunkSize + rest,
          ids: Array.from({ length: chunks }, (_, number) => idOf(number % 5)),
        };
        t.deepEqual(decodeCaibx(encodeCaibx(index)), index);
      },
    ),
  );
});

test('the bytes are those of casync', (t) => {
  const bytes = Buffer.from(encodeCaibx(sample(1)));
  t.is(bytes.length, 48 + 16 + 40 + 40);
  t.is(bytes.subarray(0, 16).toString('hex'), '3000000000000000f99f127b9c4d8296');
  t.is(bytes.readBigUInt64LE(16), 0n, 'no SHA-512/256');
  t.is(bytes.subarray(-8).toString('hex'), 'd1ec49550e054f4b');
});

const bad: [string, (bytes: Buffer) => Buffer][] = [
  ['nothing', () => Buffer.alloc(0)],
  ['a cut-off table', (bytes) => bytes.subarray(0, -1)],
  ['a missing item', (bytes) => Buffer.concat([bytes.subarray(0, 64), bytes.subarray(104)])],
  ['another magic number', (bytes) => flip(bytes, 8)],
  ['ids that are SHA-512/256', (bytes) => flip(bytes, 23, 0x20)],
  ['chunk sizes that differ', (bytes) => flip(bytes, 26)],
  ['an end that is not on the grid', (bytes) => flip(bytes, 64)],
  ['a tail that points elsewhere', (bytes) => flip(bytes, bytes.length - 24)],
  ['another tail marker', (bytes) => flip(bytes, bytes.length - 1)],
];
const flip = (bytes: Buffer, at: number, bit = 1): Buffer => {
  const copy = Buffer.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ bit;
  return copy;
};
for (const [what, damage] of bad) {
  test(`an index with ${what} is refused`, (t) => {
    t.throws(() => decodeCaibx(damage(Buffer.from(encodeCaibx(sample(3))))), { code: 'IMAGE_INVALID' });
  });
}

test('ids that do not cover the size are not written', (t) => {
  t.throws(() => encodeCaibx({ ...sample(3), size: 65536 * 3 + 1 }), { code: 'IMAGE_INVALID' });
  t.throws(() => encodeCaibx({ ...sample(3), ids: ['x'.repeat(64), idOf(1), idOf(2)] }), {
    code: 'IMAGE_INVALID',
  });
});

test('noise brings an ImagingError or an index, nothing else', (t) => {
  const whole = Buffer.from(encodeCaibx(sample(4)));
  const damaged = fc
    .tuple(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }))
    .map(([at, bits]) => flip(whole, at, bits));
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 400 }), damaged), (bytes) => {
      try {
        return decodeCaibx(bytes).ids.every((id) => id.length === 64);
      } catch (error) {
        return isImagingError(error);
      }
    }),
    { numRuns: 2000 },
  );
  t.pass();
});
