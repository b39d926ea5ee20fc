import { readFileSync } from 'node:fs';
import test from 'ava';
import fc from 'fast-check';
import { parseDumpe2fs } from '../../../agent/filesystem/ext.ts';
import { totalLength, uniteExtents } from '../../../agent/filesystem/extents.ts';
import { parseNtfsBootSector, parseNtfsInfo } from '../../../agent/filesystem/ntfs.ts';
import { parsePartcloneMap } from '../../../agent/filesystem/partclone-map.ts';
import { parseBlkid } from '../../../agent/filesystem/probe.ts';

const MIB = 1024 * 1024;
const fixture = (path: string): string => readFileSync(`test/fixtures/tools/${path}`, 'utf8');

test('partclone’s map and summary, recorded from 0.3.23', (t) => {
  const map = parsePartcloneMap(fixture('partclone/extfs-0.3.23.map'), fixture('partclone/extfs-0.3.23.log'));
  t.is(map.covered, 64 * MIB);
  t.is(map.blockSize, 1024);
  t.is(map.extents.length, 6);
  t.deepEqual(map.extents[0], { offset: 0, length: 0x448400 });
  t.is(totalLength(map.extents), map.inUse);
});

test('a map that is cut off, has a gap or lacks its summary is not believed', (t) => {
  const [map, log] = [fixture('partclone/extfs-0.3.23.map'), fixture('partclone/extfs-0.3.23.log')];
  const lines = map.trimEnd().split('\n');
  const broken = [
    [lines.slice(0, -1).join('\n'), log],
    [lines.toSpliced(8, 1).join('\n'), log],
    ['', log],
    [map, ''],
    [map.replace('0x00000000  0x00448400  +', '0x00000000  0x00448400  *'), log],
    [`${map}\nout of memory`, log],
  ];
  for (const [stdout = '', stderr = ''] of broken) {
    t.throws(() => parsePartcloneMap(stdout, stderr), { code: 'TOOL_FAILED' });
  }
});

test('blkid’s escapes give back the exact label', (t) => {
  t.deepEqual(parseBlkid(fixture('blkid/ext4-label.txt'), 0), {
    type: 'ext4',
    uuid: '0b8bd0c5-1a2f-4f5e-9c55-8b6d2c1e0f11',
    label: 'a "b", \\ü日',
    ambiguous: false,
  });
});

test('blkid’s ambivalence and silence', (t) => {
  t.true(parseBlkid(fixture('blkid/ambiguous.txt'), 8).ambiguous);
  t.deepEqual(parseBlkid('', 2), { type: '', uuid: '', label: '', ambiguous: false });
});

test('the state of an ext4 from dumpe2fs', (t) => {
  const superblock = parseDumpe2fs(fixture('dumpe2fs/clean.txt'));
  t.like(superblock, { state: 'clean', blockSize: 1024, blocks: 65536 });
  t.false(superblock.features.includes('needs_recovery'));
  t.true(superblock.freeBlocks > 0);
  t.throws(() => parseDumpe2fs('Block size: 1'), { code: 'TOOL_FAILED' });
});

test('sizes from ntfsresize, none where its check did not end', (t) => {
  const info = parseNtfsInfo(fixture('ntfsresize/info.txt'));
  // whole clusters only
  t.is(info?.volumeBytes, 64 * MIB - 4096 + 512);
  t.true((info?.minimumBytes ?? 0) > MIB);
  t.is(parseNtfsInfo('Current volume size: 67108352 bytes (68 MB)\nERROR: bad cluster'), null);
});

test('an NTFS boot sector: sectors a cluster may be a negative power of two', (t) => {
  const sector = Buffer.alloc(512);
  sector.write('NTFS    ', 3, 'latin1');
  sector.writeUInt16LE(512, 11);
  sector.writeUInt8(8, 13);
  sector.writeBigUInt64LE(131071n, 40);
  t.deepEqual(parseNtfsBootSector(sector), { volumeBytes: 64 * MIB - 512, clusterBytes: 4096 });
  sector.writeUInt8(248, 13);
  t.is(parseNtfsBootSector(sector).clusterBytes, 512 * 256);
  t.throws(() => parseNtfsBootSector(Buffer.alloc(512)), { code: 'TOOL_FAILED' });
});

test('united extents are sorted, apart, inside, and cover exactly what was given', (t) => {
  const extent = fc.record({ offset: fc.nat(60), length: fc.nat(20) });
  fc.assert(
    fc.property(fc.array(extent, { maxLength: 12 }), fc.integer({ min: 1, max: 70 }), (extents, limit) => {
      const united = uniteExtents(extents, limit);
      let end = -1;
      for (const { offset, length } of united) {
        if (offset <= end || length <= 0) throw new Error('touching or empty');
        end = offset + length;
      }
      const has = (list: typeof extents, at: number) =>
        list.some((e) => at >= e.offset && at < e.offset + e.length);
      for (let at = 0; at < 90; at++) {
        if (has(united, at) !== (at < limit && has(extents, at))) throw new Error(`differs at ${at}`);
      }
    }),
  );
  t.pass();
});
