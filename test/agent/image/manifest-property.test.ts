import test from 'ava';
import fc from 'fast-check';
import { ImagingError } from '../../../agent/errors.ts';
import { manifestText, parseManifest } from '../../../agent/image/manifest.ts';
import type { ImagePartition, Manifest } from '../../../agent/protocol/manifest.ts';
import { anyDisk, assertSound } from '../disk/layout-cases.ts';
import { imageOf, MIB } from '../disk/planner-cases.ts';

/** The richest that there is: damage, and volumes inside of both kinds. */
const manifestOf = (disk: Manifest['disks'][0]): Manifest => {
  const partitions = disk.partitions.map((partition, at): ImagePartition => {
    const files = {
      index: {
        name: `${partition.name}.caibx`,
        size: 144,
        sha256: 'a'.repeat(64),
        chunks: Math.ceil(partition.size / MIB),
      },
      map: { name: `${partition.name}.map`, size: 40, sha256: 'b'.repeat(64) },
    };
    if (partition.method === 'recreate') return { ...partition, index: null, map: null };
    const half = Math.floor(partition.size / 1024) * 512;
    const damaged = [{ start: 0, size: 512 }, ...(half > 512 ? [{ start: half, size: 512 }] : [])];
    if (partition.method !== 'used' || half < 1024) return { ...partition, ...files, damaged };
    const type = at % 2 === 0 ? 'crypto_LUKS' : 'LVM2_member';
    const inside = { size: half, role: 'os' as const, filesystem: null, method: 'used' as const, reason: '' };
    const luks = { ...inside, kind: 'luks' as const, name: 'key-uuid', uuid: 'key-uuid' };
    const lvm = ['root', 'var'].map((name) => ({
      ...inside,
      kind: 'lvm' as const,
      name: `vg/${name}`,
      uuid: name,
    }));
    return {
      ...partition,
      ...files,
      damaged,
      filesystem: { type, uuid: '', label: '', minimumBytes: null, usedBytes: null },
      contains: type === 'crypto_LUKS' ? [luks, ...lvm] : lvm,
    };
  });
  return {
    ...imageOf({ size: disk.size, partitions: [] }),
    chunkSize: MIB,
    disks: [{ ...disk, partitions }],
  };
};

/** Everything that a deploy takes for granted, said once more. */
const assertInvariants = ({ chunkSize, version, derivedFrom, disks }: Manifest): void => {
  const check = (holds: boolean, what: string) => {
    if (!holds) throw new Error(what);
  };
  check(chunkSize % 4096 === 0 && chunkSize >= 65536 && chunkSize <= 16 * MIB, 'chunk size');
  check(derivedFrom === null || derivedFrom < version, 'made from a version before it');
  const files = new Set<string>();
  for (const disk of disks) {
    check(disk.bootArea === null || disk.bootArea.size <= MIB, 'boot area');
    assertSound(disk, disk.partitions);
    for (const { name, size, method, index, map, damaged, contains, filesystem } of disk.partitions) {
      check((method === 'recreate') === (index === null && map === null), 'files');
      for (const file of [index, map]) {
        if (!file) continue;
        check(/^(d\d+)?p\d+\.(caibx|map)$/.test(file.name) && file.name.startsWith(`${name}.`), 'name');
        check(!files.has(file.name), 'one file, one partition');
        files.add(file.name);
      }
      check(index === null || index.chunks === Math.ceil(size / chunkSize), 'chunks');
      for (const [at, { start, size: length }] of damaged.entries()) {
        const before = damaged[at - 1];
        check(length > 0 && start % 512 === 0 && length % 512 === 0, 'damage by sectors');
        check(start >= (before ? before.start + before.size : 0), 'damage in order and apart');
        check(start + length <= size && method !== 'recreate', 'damage inside');
      }
      check(
        contains.length === 0 || ['crypto_LUKS', 'LVM2_member'].includes(filesystem?.type ?? ''),
        'holds',
      );
      const volumes = contains.filter(({ kind }) => kind === 'lvm');
      check(new Set(volumes.map(({ uuid }) => uuid)).size === volumes.length, 'volumes once');
      for (const volume of volumes)
        check(/^[\w+.][\w+.-]*\/[\w+.][\w+.-]*$/.test(volume.name), 'volume name');
      for (const volume of contains) {
        check(volume.size > 0 && volume.size % 512 === 0 && volume.method !== 'recreate', 'volume');
      }
    }
  }
};

type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

const hostile: fc.Arbitrary<Json | undefined> = fc.oneof(
  fc.constantFrom<(Json | undefined)[]>(
    ...[undefined, null, true, '', [], {}, 0, -0, -1, 1, 511, 512, 513, 4096, 65_537, 2 ** 31, 2 ** 32],
    ...[2 ** 53 - 1, 2 ** 53, 1e308, -1e308, 0.5, Number.NaN, Number.POSITIVE_INFINITY],
    ...[
      '../p1.map',
      'p1.map',
      'd1.boot',
      'used',
      'raw',
      'recreate',
      'luks',
      'lvm',
      'gpt',
      'dos',
      'none',
      '05',
    ],
    ...['-y/root', 'vg/../x', 'vg/-y', './x', 'vg/root\n', '\0', '__proto__', 'x'.repeat(70_000)],
  ),
  fc.integer({ min: 0, max: 2 ** 40 }).map((sectors) => sectors * 512),
  fc.jsonValue({ maxDepth: 2 }) as fc.Arbitrary<Json>,
);

const placesIn = (value: Json, path: (string | number)[] = []): (string | number)[][] => {
  if (value === null || typeof value !== 'object') return [path];
  const inside = Array.isArray(value) ? [...value.entries()] : Object.entries(value);
  return [path, ...inside.flatMap(([name, one]) => placesIn(one as Json, [...path, name]))];
};

const mutate = (manifest: Json, where: number, value: Json | undefined, from: number | null): Json => {
  const copy = structuredClone(manifest);
  const places = placesIn(copy);
  const path = places[where % places.length] ?? [];
  const at = (to: readonly (string | number)[]): Json =>
    // biome-ignore lint/suspicious/noExplicitAny: any member of any JSON
    to.reduce<any>((inside, name) => inside?.[name], copy) as Json;
  // something else of the same manifest, in the wrong place: the likeliest to look right
  const put = from === null ? value : structuredClone(at(places[from % places.length] ?? []));
  const last = path.at(-1);
  if (last === undefined) return put ?? null;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  (at(path.slice(0, -1)) as any)[last] = put;
  return copy;
};

test('any manifest with anything changed: its invariants hold, or it is refused with its code', (t) => {
  const changes = fc.array(
    fc.record({ where: fc.nat(), value: hostile, from: fc.option(fc.nat(), { freq: 2 }) }),
    { minLength: 0, maxLength: 3 },
  );
  const seen = { sound: 0, changed: 0, refused: 0 };
  fc.assert(
    fc.property(anyDisk, changes, (disk, list) => {
      const original = manifestOf(disk);
      let value = original as unknown as Json;
      for (const { where, value: put, from } of list) value = mutate(value, where, put, from);
      let parsed: Manifest;
      try {
        parsed = parseManifest(value);
      } catch (error) {
        if (!(error instanceof ImagingError) || error.code !== 'IMAGE_INVALID') throw error;
        if (list.length === 0) throw error;
        seen.refused++;
        return;
      }
      assertInvariants(parsed);
      if (parseManifest(JSON.parse(manifestText(parsed))).version !== parsed.version) throw new Error('text');
      if (list.length === 0) seen.sound++;
      else seen.changed++;
    }),
    { numRuns: 4000 },
  );
  t.true(seen.sound > 100 && seen.changed > 100 && seen.refused > 1000, JSON.stringify(seen));
});
