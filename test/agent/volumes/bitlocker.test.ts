import { randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';
import test from 'ava';
import fc from 'fast-check';
import { METADATA_SIZE, parseBootSector, parseMetadata } from '../../../agent/volumes/bitlocker/on-disk.ts';
import { segmentsOf } from '../../../agent/volumes/bitlocker/segments.ts';
import { passwordDigest, recoveryDigest, stretch } from '../../../agent/volumes/bitlocker/stretch.ts';

const KIB = 1024;
const places = { sectorSize: 512 as const, metadata: [128 * KIB, 512 * KIB, 800 * KIB] };

test('the clear volume has no gaps: its beginning from where it lies, zeros for what is BitLocker’s own', (t) => {
  const header = { offset: 192 * KIB, length: 8 * KIB };
  t.deepEqual(
    segmentsOf({ ...places, header }, KIB * KIB)?.map(({ start, length, from }) => [
      start / KIB,
      length / KIB,
      from === null ? null : from / KIB,
    ]),
    [
      [0, 8, 192],
      [8, 120, 8],
      [128, 64, null],
      [192, 8, null],
      [200, 312, 200],
      [512, 64, null],
      [576, 224, 576],
      [800, 64, null],
      [864, 160, 864],
    ],
  );
});

test('places that are in each other’s way, reach beyond the end or begin within a sector are no layout', (t) => {
  const header = { offset: 192 * KIB, length: 8 * KIB };
  t.is(segmentsOf({ ...places, header: { offset: 0, length: 0 } }, KIB * KIB), null);
  t.is(segmentsOf({ ...places, header: { offset: 191 * KIB, length: 8 * KIB } }, KIB * KIB), null);
  t.is(segmentsOf({ ...places, header: { offset: 4 * KIB, length: 8 * KIB } }, KIB * KIB), null);
  t.is(segmentsOf({ ...places, header, metadata: [4 * KIB, 512 * KIB, 800 * KIB] }, KIB * KIB), null);
  t.is(segmentsOf({ ...places, header, sectorSize: 4096, metadata: [127 * KIB] }, KIB * KIB), null);
  t.is(segmentsOf({ ...places, header }, 850 * KIB), null);
});

test('a recovery password is eight multiples of 11, however it is written', (t) => {
  // libbde, "Recovery key"
  const text = '471207-278498-422125-177177-561902-537405-468006-693451';
  const digest = recoveryDigest(text);
  t.is(digest?.length, 32);
  for (const same of [text.replaceAll('-', ''), text.replaceAll('-', ' '), ` ${text}\n`]) {
    t.deepEqual(recoveryDigest(same), digest);
  }
  for (const other of [
    '',
    'password',
    text.slice(1),
    text.replace('471207', '471208'),
    text.replace('471207', '999999'),
    `${text}1`,
  ]) {
    t.is(recoveryDigest(other), null, other);
  }
});

test('derivation of a key can be cancelled', async (t) => {
  const controller = new AbortController();
  const derived = stretch(passwordDigest('a'), randomBytes(16), controller.signal);
  controller.abort(new Error('enough'));
  await t.throwsAsync(derived, { message: 'enough' });
});

/** Metadata with these bytes for entries and a right checksum. */
const blockWith = (entries: Uint8Array, size = 48 + entries.length): Buffer => {
  const length = Math.ceil((112 + entries.length) / 16) * 16;
  const block = Buffer.alloc(METADATA_SIZE);
  block.write('-FVE-FS-', 0, 'latin1');
  for (const [at, word] of [length / 16, 2, 4, 4].entries()) block.writeUInt16LE(word, 8 + at * 2);
  for (const [at, place] of places.metadata.entries()) block.writeBigUInt64LE(BigInt(place), 32 + at * 8);
  block.writeUInt32LE(size, 64);
  block.set(entries, 112);
  block.writeUInt32LE(crc32(block.subarray(0, length)), length + 4);
  return block;
};

test('metadata is refused, whatever its bytes are: no entry leads out of it', (t) => {
  t.truthy(parseMetadata(blockWith(new Uint8Array()), places));
  t.is(parseMetadata(blockWith(new Uint8Array(), 60_000), places), null);
  // an entry of 4 bytes, one beyond the end, a key protector without a key
  for (const hex of ['0400000000000100', 'ff00030005000100', '0c0002000800010000000000']) {
    t.is(parseMetadata(blockWith(Buffer.from(hex, 'hex')), places), null, hex);
  }
  const outcome = (block: Buffer): string => {
    const parsed = parseMetadata(block, places);
    return parsed === null || typeof parsed === 'string' ? 'refused' : 'parsed';
  };
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) =>
      ['refused', 'parsed'].includes(outcome(blockWith(bytes))),
    ),
  );
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 200, maxLength: 600 }), (bytes) => {
      const boot = Buffer.alloc(512);
      boot.set(bytes.slice(0, 512));
      boot.write('\xeb\x58\x90-FVE-FS-', 0, 'latin1');
      boot.writeUInt16LE(512, 11);
      boot.write('3bd66749292ed84a8399f6a339e3d001', 160, 'hex');
      const parsed = parseBootSector(boot);
      return typeof parsed === 'string' || parsed.metadata.every((place) => place >= 0);
    }),
  );
});
