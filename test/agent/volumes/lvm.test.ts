import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { isImagingError } from '../../../agent/errors.ts';
import { type ConfigSection, encodeConfig, parseConfig } from '../../../agent/volumes/lvm/config.ts';
import { linearRuns, mapExtents, parseGroup, placesOn, whyWhole } from '../../../agent/volumes/lvm/group.ts';
import {
  checkText,
  encodeMetadata,
  lvmCrc,
  type MdaHeader,
  parseLabel,
  parseMdaHeader,
  textRanges,
} from '../../../agent/volumes/lvm/on-disk.ts';

const fixtures = join(import.meta.dirname, '../../fixtures/volumes');
const text = (name: string): Promise<string> => readFile(join(fixtures, name), 'utf8');
const MIB = 1024 * 1024;

const refused = (work: () => unknown): boolean => {
  try {
    work();
    return false;
  } catch (error) {
    if (isImagingError(error) && error.code === 'LAYOUT_UNSUPPORTED') return true;
    throw error;
  }
};

test('the checksum is lvm2’s', (t) => {
  t.is(lvmCrc(Buffer.alloc(0)), 0xf597a6cf);
  t.is(lvmCrc(Buffer.from('LVM2')), crcBySpecification(Buffer.from('LVM2')));
});

/** lib/misc/crc.c in its bitwise form */
const crcBySpecification = (bytes: Uint8Array): number => {
  let crc = 0xf597a6cf;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return crc >>> 0;
};

const anyName = fc.stringMatching(/^[A-Za-z_][A-Za-z0-9_.+-]{0,12}$/);
const anyScalar = fc.oneof(fc.integer(), fc.string({ maxLength: 30, unit: 'grapheme' }));
const anyConfig = fc.letrec<{ section: ConfigSection }>((tie) => ({
  section: fc
    .array(
      fc.tuple(
        anyName,
        fc.oneof(
          { depthSize: 'small', maxDepth: 4 },
          anyScalar,
          fc.array(anyScalar, { maxLength: 5 }),
          tie('section'),
        ),
      ),
      { maxLength: 6 },
    )
    .map((entries) => new Map(entries) as ConfigSection),
})).section;

test('a text comes back as it was encoded, whatever its strings hold', (t) => {
  fc.assert(
    fc.property(anyConfig, (config) => {
      t.deepEqual(parseConfig(encodeConfig(config)), config);
    }),
  );
});

test('any text is parsed or refused', (t) => {
  fc.assert(fc.property(fc.string({ maxLength: 300 }), (any) => refused(() => parseGroup(any))));
  for (const hostile of [
    'a {'.repeat(100_000),
    'a = [',
    'a = 1 a = 2',
    'a = 1.5',
    '}',
    'a = "',
    '[[[[',
    'a = 99999999999999999999',
  ]) {
    t.true(
      refused(() => parseConfig(hostile)),
      hostile.slice(0, 20),
    );
  }
});

test('mutations of real metadata are parsed or refused, and never reach beyond their volumes', async (t) => {
  const original = await text('lvm-2.03.16.txt');
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(original.length - 1), fc.constantFrom(...'0123456789{}[]=",\n a#-')), {
        minLength: 1,
        maxLength: 6,
      }),
      (edits) => {
        const characters = [...original];
        for (const [at, character] of edits) characters[at] = character;
        let group: ReturnType<typeof parseGroup>;
        try {
          group = parseGroup(characters.join(''));
        } catch (error) {
          return isImagingError(error) && error.code === 'LAYOUT_UNSUPPORTED';
        }
        return group.logical.every((lv) =>
          group.physical.every((pv) =>
            placesOn(group, lv, pv).every(
              ({ offset, length }) =>
                offset >= pv.start && offset + length <= pv.start + pv.extents * group.extentSize,
            ),
          ),
        );
      },
    ),
    { numRuns: 2000 },
  );
  t.pass();
});

test('a linear volume in two pieces, as lvm2 wrote it', async (t) => {
  const group = parseGroup(await text('lvm-2.03.16.txt'));
  t.like(group, { name: 'fog-vg', seqno: 5, extentSize: 4 * MIB });
  t.is(whyWhole(group), null);
  const root = group.logical.find(({ name }) => name === 'root');
  if (!root) throw new Error('no root');
  const runs = linearRuns(group, root);
  if (typeof runs === 'string') throw new Error(runs);
  t.deepEqual(runs, [
    { key: 'pv0', offset: MIB, start: 0, length: 100 * MIB },
    { key: 'pv1', offset: MIB, start: 100 * MIB, length: 8 * MIB },
  ]);
  const used = [
    { offset: 0, length: 4096 },
    { offset: 100 * MIB - 4096, length: 8192 },
  ];
  t.deepEqual(mapExtents(runs, used, 'pv0'), [
    { offset: MIB, length: 4096 },
    { offset: 101 * MIB - 4096, length: 4096 },
  ]);
  t.deepEqual(mapExtents(runs, used, 'pv1'), [{ offset: MIB, length: 4096 }]);
});

test('what is not linear says what it is, and its places on the disk are known', async (t) => {
  const group = parseGroup(await text('lvm-kinds.txt'));
  t.is(whyWhole(group), null);
  const why = Object.fromEntries(group.logical.map((lv) => [lv.name, linearRuns(group, lv)]));
  t.deepEqual(
    Object.fromEntries(
      Object.entries(why).map(([name, runs]) => [name, typeof runs === 'string' ? runs : 'linear']),
    ),
    {
      plain: 'linear',
      origin: 'part of snapshot0 (snapshot)',
      kept: 'part of snapshot0 (snapshot)',
      pool: 'of type thin-pool',
      thin: 'of type thin',
      mirror: 'of type raid1',
      stripes: '2 stripes',
      snapshot0: 'of type snapshot',
      lvol0_pmspare: 'a part of another volume',
      pool_tmeta: 'part of pool (thin-pool)',
      pool_tdata: 'part of pool (thin-pool)',
      mirror_rmeta_0: 'part of mirror (raid1)',
      mirror_rimage_0: 'part of mirror (raid1)',
      mirror_rmeta_1: 'part of mirror (raid1)',
      mirror_rimage_1: 'part of mirror (raid1)',
    },
  );
  const [pv] = group.physical;
  const tdata = group.logical.find(({ name }) => name === 'pool_tdata');
  if (!pv || !tdata) throw new Error('no pool');
  t.is(
    placesOn(group, tdata, pv).reduce((sum, { length }) => sum + length, 0),
    16 * MIB,
  );
});

test('an unknown kind, an exported or a shared group is kept whole, with the reason', async (t) => {
  const original = await text('lvm-2.03.16.txt');
  const why = (from: string, to: string) => whyWhole(parseGroup(original.replace(from, to)));
  t.is(why('type = "striped"', 'type = "era"'), 'fog-vg/root is of an unknown kind (era)');
  t.is(why('"RESIZEABLE"', '"EXPORTED"'), 'volume group fog-vg is exported');
  t.is(why('"RESIZEABLE"', '"CLUSTERED"'), 'volume group fog-vg is shared');
  t.is(why('"ALLOCATABLE"', '"MISSING"'), 'volume group fog-vg has lost a physical volume');
});

const ring = fc.record({
  sectors: fc.integer({ min: 8, max: 40 }),
  texts: fc.array(fc.integer({ min: 1, max: 1500 }), { maxLength: 30 }),
});

test('metadata goes round its ring, and the text before the last one is still there', (t) => {
  fc.assert(
    fc.property(ring, ({ sectors, texts }) => {
      const disk = Buffer.alloc(4096 + (sectors + 1) * 512);
      const area = { start: 4096, size: (sectors + 1) * 512 };
      let header: MdaHeader = { ...area, text: null };
      let before = '';
      const read = (from: MdaHeader) => {
        if (!from.text) return '';
        const pieces = textRanges(from, from.text).map(({ start, size }) =>
          disk.subarray(start, start + size),
        );
        return checkText(Buffer.concat(pieces), from.text);
      };
      for (const [number, length] of texts.entries()) {
        const next = String.fromCharCode(65 + (number % 26)).repeat(length);
        const encoded = encodeMetadata(header, next);
        for (const { offset, bytes } of encoded.text) bytes.copy(disk, offset);
        // cut here, the header still names the old text
        t.is(read(header), before);
        encoded.header.bytes.copy(disk, encoded.header.offset);
        header = parseMdaHeader(disk.subarray(4096, 4608), area);
        t.is(read(header), next);
        before = next;
      }
    }),
  );
});

test('a label that is damaged is refused, none is none', (t) => {
  t.is(parseLabel(Buffer.alloc(2048)), null);
  t.is(parseLabel(Buffer.alloc(0)), null);
  const label = Buffer.alloc(2048);
  label.write('LABELONE', 512, 'latin1');
  label.write('LVM2 001', 536, 'latin1');
  label.writeBigUInt64LE(1n, 520);
  t.true(refused(() => parseLabel(label)));
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 488, maxLength: 488 }), (rest) => {
      Buffer.from(rest).copy(label, 536);
      label.write('LVM2 001', 536, 'latin1');
      label.writeUInt32LE(lvmCrc(label.subarray(532, 1024)), 528);
      return refused(() => parseLabel(label)) || parseLabel(label) !== null;
    }),
  );
});
