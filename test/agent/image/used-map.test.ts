import test from 'ava';
import fc from 'fast-check';
import { compress } from 'zstd-napi';
import { isImagingError } from '../../../agent/errors.ts';
import type { Extent } from '../../../agent/image/extent.ts';
import { chunkUsage } from '../../../agent/image/grid.ts';
import { decodeMap, encodeMap, normaliseExtents, zeroUnused } from '../../../agent/image/used-map.ts';

const size = 5000;
const anyExtents = fc.array(fc.record({ offset: fc.nat(size + 100), length: fc.nat(700) }), {
  maxLength: 12,
});

/** the slow and obvious way */
const marked = (extents: readonly Extent[]): boolean[] => {
  const used = new Array<boolean>(size).fill(false);
  for (const { offset, length } of extents) {
    for (let at = offset; at < Math.min(size, offset + length); at += 1) used[at] = true;
  }
  return used;
};

test('normalised extents cover the same bytes, in order and apart', (t) => {
  fc.assert(
    fc.property(anyExtents, (extents) => {
      const normal = normaliseExtents(extents, size);
      t.deepEqual(marked(normal), marked(extents));
      for (const [number, { offset, length }] of normal.entries()) {
        const before = normal[number - 1];
        if (length <= 0 || offset + length > size) return false;
        if (before && before.offset + before.length >= offset) return false;
      }
      return true;
    }),
  );
});

test('too many extents become fewer that cover at least as much', (t) => {
  const many = Array.from({ length: 100 }, (_, number) => ({ offset: number * 8192, length: 4096 }));
  const fewer = normaliseExtents(many, 100 * 8192, 10);
  t.true(fewer.length <= 10);
  for (const { offset } of many) {
    t.true(fewer.some((extent) => extent.offset <= offset && offset + 4096 <= extent.offset + extent.length));
  }
});

test('a map comes back as it was written', (t) => {
  fc.assert(
    fc.property(anyExtents, (extents) => {
      const normal = normaliseExtents(extents, size);
      t.deepEqual(decodeMap(encodeMap(normal, size)), { size, extents: normal });
    }),
  );
  const huge = [{ offset: 2 ** 44 + 512, length: 2 ** 45 }];
  t.deepEqual(decodeMap(encodeMap(huge, 2 ** 46)).extents, huge);
});

test('extents that overlap or leave the partition are not written', (t) => {
  for (const extents of [
    [{ offset: 0, length: size + 1 }],
    [
      { offset: 0, length: 10 },
      { offset: 5, length: 10 },
    ],
    [{ offset: 0, length: 0 }],
  ]) {
    t.throws(() => encodeMap(extents, size), { code: 'IMAGE_INVALID' });
  }
});

const plainMap = (count: bigint, body: number[]): Uint8Array => {
  const plain = Buffer.alloc(24);
  plain.write('usedmap\x01', 'latin1');
  plain.writeBigUInt64LE(BigInt(size), 8);
  plain.writeBigUInt64LE(count, 16);
  return compress(Buffer.concat([plain, Buffer.from(body)]));
};
const bad: [string, Uint8Array][] = [
  ['a number with leading zeros', plainMap(1n, [0x80, 0x00, 1])],
  ['a number without an end', plainMap(1n, [0x80])],
  ['a number beyond 2^53', plainMap(1n, [...new Array(9).fill(0xff), 0x7f, 1])],
  ['adjacent extents', plainMap(2n, [0, 5, 0, 5])],
  ['an empty extent', plainMap(1n, [0, 0])],
  ['more bytes than extents', plainMap(1n, [0, 5, 1])],
  ['a huge count', plainMap(2n ** 63n, [0, 5])],
  ['two frames', Buffer.concat([plainMap(0n, []), plainMap(0n, [])])],
  ['no magic', compress(Buffer.alloc(24))],
];
for (const [what, bytes] of bad) {
  test(`a map with ${what} is refused`, (t) => {
    t.throws(() => decodeMap(bytes), { code: 'IMAGE_INVALID' });
  });
}

test('a frame that claims to be huge is refused before memory is taken', (t) => {
  const bomb = compress(Buffer.alloc(100 * 1024 * 1024));
  t.throws(() => decodeMap(bomb), { code: 'IMAGE_INVALID', message: /possible size/ });
});

test('noise brings an ImagingError or a map, nothing else', (t) => {
  const noise = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc
      .tuple(fc.bigInt({ min: 0n, max: 50n }), fc.array(fc.nat(255), { maxLength: 60 }))
      .map(([count, body]) => plainMap(count, body)),
  );
  fc.assert(
    fc.property(noise, (bytes) => {
      try {
        decodeMap(bytes);
        return true;
      } catch (error) {
        return isImagingError(error);
      }
    }),
    { numRuns: 2000 },
  );
  t.pass();
});

test('zeroing keeps what is used and nothing else', (t) => {
  fc.assert(
    fc.property(anyExtents, fc.nat(size - 1), fc.integer({ min: 1, max: 800 }), (extents, offset, length) => {
      const buffer = new Uint8Array(length).fill(1);
      zeroUnused(buffer, offset, normaliseExtents(extents, size));
      const expected = marked(extents);
      for (let at = 0; at < length; at += 1) {
        if (buffer[at] !== (expected[offset + at] ? 1 : 0)) return false;
      }
      return true;
    }),
  );
  t.pass();
});

test('a grid knows what is used of every chunk', (t) => {
  fc.assert(
    fc.property(anyExtents, fc.constantFrom(64, 512, 999, 5000, 6000), (extents, chunkSize) => {
      const normal = normaliseExtents(extents, size);
      const grid = chunkUsage(normal, chunkSize, size);
      const expected = marked(extents);
      const used: number[] = [];
      let bytes = 0;
      for (let number = 0; number < grid.count; number += 1) {
        const slice = expected.slice(number * chunkSize, (number + 1) * chunkSize);
        if (slice.length !== grid.length(number)) return false;
        const inside = new Array<boolean>(slice.length).fill(false);
        for (const { offset, length } of grid.usedOf(number)) inside.fill(true, offset, offset + length);
        if (inside.some((flag, at) => flag !== slice[at])) return false;
        if (!slice.includes(true)) continue;
        used.push(number);
        bytes += slice.length;
      }
      t.deepEqual(grid.used, used);
      return grid.usedBytes === bytes;
    }),
  );
});
