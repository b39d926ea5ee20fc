import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { isImagingError } from '../../../agent/errors.ts';
import { type ConfigSection, encodeConfig } from '../../../agent/volumes/lvm/config.ts';
import { linearRuns, parseGroup, type VolumeGroup } from '../../../agent/volumes/lvm/group.ts';
import {
  checkText,
  encodeMetadata,
  lvmCrc,
  type MdaHeader,
  parseLabel,
  parseMdaHeader,
  textRanges,
} from '../../../agent/volumes/lvm/on-disk.ts';
import { encodeMember } from '../../../agent/volumes/lvm/shrink-encode.ts';
import {
  type KnownMember,
  planMember,
  smallestMember,
  whyFixed,
} from '../../../agent/volumes/lvm/shrink-plan.ts';

const fixtures = join(import.meta.dirname, '../../fixtures/volumes');
const KIB = 1024;
const EXTENT = 64 * KIB;
const START = 64 * KIB;
const PV = 'abcdefghijklmnopqrstuvwxyz012345';
const dashedPv = 'abcdef-ghij-klmn-opqr-stuv-wxyz-012345';

interface Shape {
  /** extents of each segment of each volume */
  volumes: number[][];
  /** a number for each segment and each gap: their order on the disk */
  order: number[];
  /** free extents */
  gaps: number[];
  /** share of its size that a volume needs, null where it keeps it */
  needs: (number | null)[];
  copies: 1 | 2;
  /** bytes of the volume beyond its last extent */
  rest: number;
}

const anyShape: fc.Arbitrary<Shape> = fc.record({
  volumes: fc.array(fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 4 }), {
    maxLength: 5,
  }),
  order: fc.array(fc.nat(1000), { minLength: 26, maxLength: 26 }),
  gaps: fc.array(fc.integer({ min: 1, max: 20 }), { maxLength: 6 }),
  needs: fc.array(fc.option(fc.double({ min: 0, max: 1, noNaN: true })), { minLength: 5, maxLength: 5 }),
  copies: fc.constantFrom(1, 2),
  rest: fc.integer({ min: 0, max: 127 }).map((sectors) => sectors * 512),
});

interface Made {
  disk: Buffer;
  floors: Map<string, number>;
  /** content of each volume, by name */
  contents: Map<string, Buffer>;
}

/** A physical volume as bytes: what each extent of each volume holds tells which one it is. */
const makeDisk = ({ volumes, order, gaps, needs, copies, rest }: Shape): Made => {
  const parts = [
    ...volumes.flatMap((segments, lv) => segments.map((extents, segment) => ({ lv, segment, extents }))),
    ...gaps.map((extents) => ({ lv: -1, segment: 0, extents })),
  ].map((part, at) => ({ ...part, rank: order[at] ?? 0, first: 0 }));
  let next = 0;
  for (const part of parts.toSorted((a, b) => a.rank - b.rank)) {
    part.first = next;
    next += part.extents;
  }
  const count = Math.max(next, 32);
  const behind = copies === 2 ? 64 * KIB : 0;
  const size = START + count * EXTENT + rest + behind;
  const disk = Buffer.alloc(size);
  const areas = [{ start: 4096, size: START - 4096 }];
  if (copies === 2) areas.push({ start: Math.floor((size - behind) / 4096) * 4096, size: behind });
  writeLabel(disk, areas);

  const logical: ConfigSection = new Map();
  const [floors, contents] = [new Map<string, number>(), new Map<string, Buffer>()];
  for (const [number, segments] of volumes.entries()) {
    const [name, uuid] = [`lv-${number}`, `${number}${dashedPv.slice(1)}`];
    const section: ConfigSection = new Map();
    section.set('id', uuid).set('status', ['READ', 'WRITE', 'VISIBLE']).set('flags', []);
    section.set('creation_host', 'a "host"').set('segment_count', segments.length);
    let extent = 0;
    const pieces: Buffer[] = [];
    for (const { segment, extents, first } of parts.filter(({ lv }) => lv === number)) {
      const entry: ConfigSection = new Map();
      entry.set('start_extent', extent).set('extent_count', extents).set('type', 'striped');
      section.set(`segment${segment + 1}`, entry.set('stripe_count', 1).set('stripes', ['pv0', first]));
      for (let at = 0; at < extents; at++) {
        const bytes = disk.subarray(START + (first + at) * EXTENT).subarray(0, EXTENT);
        bytes.fill(`${name} extent ${extent + at};`);
        pieces.push(Buffer.from(bytes));
      }
      extent += extents;
    }
    logical.set(name, section);
    contents.set(name, Buffer.concat(pieces));
    const need = needs[number] ?? null;
    if (need !== null) floors.set(uuid, Math.round(need * extent * EXTENT));
  }
  const text = textOf(logical, count, size);
  for (const area of areas) {
    const encoded = encodeMetadata({ ...area, text: null }, text);
    for (const { offset, bytes } of [...encoded.text, encoded.header]) bytes.copy(disk, offset);
  }
  return { disk, floors, contents };
};

const writeLabel = (disk: Buffer, areas: readonly { start: number; size: number }[]): void => {
  const label = disk.subarray(512, 1024);
  label.write('LABELONE', 0, 'latin1');
  label.writeBigUInt64LE(1n, 8);
  label.writeUInt32LE(32, 20);
  label.write('LVM2 001', 24, 'latin1');
  label.write(PV, 32, 'latin1');
  const numbers = [disk.length, START, 0, 0, 0, ...areas.flatMap(({ start, size }) => [start, size]), 0, 0];
  for (const [at, value] of numbers.entries()) label.writeBigUInt64LE(BigInt(value), 64 + at * 8);
  label.writeUInt32LE(lvmCrc(label.subarray(20)), 16);
};

const textOf = (logical: ConfigSection, count: number, size: number): string => {
  const pv: ConfigSection = new Map();
  pv.set('id', dashedPv).set('device', '/dev/sda2').set('status', ['ALLOCATABLE']);
  pv.set('dev_size', size / 512)
    .set('pe_start', START / 512)
    .set('pe_count', count);
  const group: ConfigSection = new Map();
  group.set('id', dashedPv.replace('a', 'z')).set('seqno', 7).set('status', ['RESIZEABLE', 'READ', 'WRITE']);
  group.set('extent_size', EXTENT / 512).set('physical_volumes', new Map([['pv0', pv]]));
  group.set('logical_volumes', logical);
  return encodeConfig(
    new Map<string, ConfigSection | string>([
      ['vg', group],
      ['contents', 'Text'],
    ]),
  );
};

/** All copies of the metadata, which must be the same. */
const readDisk = (disk: Buffer): { member: KnownMember; text: string } => {
  const label = parseLabel(disk.subarray(0, 2048));
  if (!label) throw new Error('no label');
  const headers: MdaHeader[] = [];
  const texts = new Set<string>();
  for (const area of label.metadataAreas) {
    const header = parseMdaHeader(disk.subarray(area.start, area.start + 512), area);
    if (!header.text) throw new Error('no text');
    const pieces = textRanges(header, header.text).map((range) =>
      disk.subarray(range.start, range.start + range.size),
    );
    headers.push(header);
    texts.add(checkText(Buffer.concat(pieces), header.text));
  }
  const [text = '', ...others] = texts;
  if (others.length > 0) throw new Error('the copies differ');
  return { member: { label, group: parseGroup(text), headers }, text };
};

const contentOf = (disk: Buffer, group: VolumeGroup, name: string): Buffer => {
  const lv = group.logical.find((one) => one.name === name);
  const runs = lv && linearRuns(group, lv);
  if (!runs || typeof runs === 'string') throw new Error(String(runs));
  return Buffer.concat(runs.map(({ offset, length }) => disk.subarray(offset, offset + length)));
};

test('any group at any size that does: no overlap, inside, nothing under its minimum, every byte up to the new size', (t) => {
  fc.assert(
    fc.property(anyShape, fc.double({ min: 0, max: 1, noNaN: true }), (shape, share) => {
      const { disk, floors, contents } = makeDisk(shape);
      const { member, text } = readDisk(disk);
      t.is(whyFixed(member), null);
      const least = Math.min(smallestMember(member, floors), disk.length);
      const size = Math.floor((least + (disk.length - least) * share) / 512) * 512;
      const plan = planMember(member, floors, size);

      const smaller = Buffer.alloc(size);
      disk.copy(smaller, 0, 0, START);
      for (const place of plan.volumes) {
        contentOf(disk, member.group, place.lv.name).copy(smaller, place.offset, 0, place.size);
      }
      const sector = disk.subarray(512, 1024);
      for (const { offset, bytes } of encodeMember(member, text, sector, plan)) {
        t.true(offset + bytes.length <= size);
        bytes.copy(smaller, offset);
      }

      const after = readDisk(smaller).member;
      // among others: no overlap, and metadata behind the extents
      t.is(whyFixed(after), null);
      const { group, label } = after;
      const [pv] = group.physical;
      t.like(group, { name: 'vg', uuid: member.group.uuid, seqno: 8, extentSize: EXTENT });
      t.like(label, { uuid: PV, size });
      t.is(label.metadataAreas.length, shape.copies);
      t.true(label.metadataAreas.every((area) => area.start + area.size <= size));
      t.true(START + (pv?.extents ?? 0) * EXTENT <= (label.metadataAreas[1]?.start ?? size));
      t.deepEqual(
        new Set(group.logical.map(({ name, uuid }) => [name, uuid].join())),
        new Set(member.group.logical.map(({ name, uuid }) => [name, uuid].join())),
      );
      for (const lv of group.logical) {
        const [now, before] = [contentOf(smaller, group, lv.name), contents.get(lv.name) ?? Buffer.alloc(0)];
        t.true(now.length <= before.length);
        t.true(now.length >= Math.min(before.length, floors.get(lv.uuid) ?? before.length));
        t.true(now.equals(before.subarray(0, now.length)), lv.name);
      }
      const lost = [...contents].some(
        ([name, { length }]) => contentOf(smaller, group, name).length < length,
      );
      const total = group.logical
        .flatMap(({ segments }) => segments)
        .reduce((sum, one) => sum + one.extents, 0);
      if (lost) t.is(total, pv?.extents ?? 0, 'nobody gives space that stays free');
    }),
    { numRuns: 300 },
  );
});

test('what does not fit is refused with the very size that would do', (t) => {
  fc.assert(
    fc.property(anyShape, (shape) => {
      const { disk, floors } = makeDisk(shape);
      const { member } = readDisk(disk);
      const needed = smallestMember(member, floors);
      const error = t.throws(() => planMember(member, floors, needed - 512), { code: 'TARGET_TOO_SMALL' });
      t.true(isImagingError(error) && error.details['neededBytes'] === needed);
      t.notThrows(() => planMember(member, floors, needed));
    }),
  );
});

test('slack goes before what is needed: a volume without free space gives none while others have some', (t) => {
  const shape: Shape = {
    ...{ volumes: [[9], [9, 9], [9]], order: Array(26).fill(0), gaps: [20], copies: 1, rest: 0 },
    needs: [0.9, 0.1, null, null, null],
  };
  const { disk, floors } = makeDisk(shape);
  const { member } = readDisk(disk);
  const sizes = (extents: number) =>
    planMember(member, floors, START + extents * EXTENT).volumes.map(({ size }) => size / EXTENT);
  // what is free in the group goes first
  t.deepEqual(sizes(36), [9, 18, 9]);
  t.deepEqual(sizes(33), [9, 15, 9]);
});

test('what has several physical volumes, or is not understood, keeps its size with the reason', async (t) => {
  const { disk } = makeDisk({
    ...{ volumes: [[3], [2, 4]], order: Array(26).fill(0), gaps: [], needs: [], copies: 2, rest: 0 },
  });
  const { member, text } = readDisk(disk);
  const why = (from: string, to: string) =>
    whyFixed({ ...member, group: parseGroup(text.replace(from, to)) });
  t.is(why('"RESIZEABLE", ', ''), 'its volume group vg is marked as not to be resized');
  t.is(why('stripe_count = 1', 'stripe_count = 1 tags = ["x"]'), 'vg/lv-0 has what is not known here (tags)');
  t.is(why('"pv0", 3', '"pv0", 2'), 'two volumes of vg claim the same place');
  t.is(why(dashedPv, dashedPv.replace('b', 'x')), "the metadata on it is another volume's");
  t.is(why('"VISIBLE"', '"VISIBLE", "LOCKED"'), 'vg/lv-0 is not linear (being moved)');
  t.is(whyFixed({ ...member, headers: member.headers.slice(1) }), 'not all copies of its metadata are sound');
  const bootAreas = [{ start: START + EXTENT, size: 4096 }];
  t.is(
    whyFixed({ ...member, label: { ...member.label, bootAreas } }),
    'what it keeps beside its extents lies in unusual places',
  );
  const fixture = async (name: string) =>
    whyFixed({ ...member, group: parseGroup(await readFile(join(fixtures, name), 'utf8')) });
  t.is(await fixture('lvm-2.03.16.txt'), 'its volume group fog-vg has 2 physical volumes');
});
