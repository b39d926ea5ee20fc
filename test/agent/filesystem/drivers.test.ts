import { readFileSync } from 'node:fs';
import test from 'ava';
import fc from 'fast-check';
import { parseBtrfsSuperblock } from '../../../agent/filesystem/btrfs.ts';
import { parseBtrfsChunks, parseBtrfsExtent } from '../../../agent/filesystem/btrfs-layout.ts';
import { isExfatSound } from '../../../agent/filesystem/exfat.ts';
import { parseExfatBootSector, setBits } from '../../../agent/filesystem/exfat-layout.ts';
import { parseDumpe2fs, parseFreeBlocks } from '../../../agent/filesystem/ext.ts';
import { invertExtents, totalLength, uniteViews } from '../../../agent/filesystem/extents.ts';
import { isF2fsSound, parseSegmentBlocks } from '../../../agent/filesystem/f2fs.ts';
import { parseF2fsCheckpoint, parseF2fsSuperblock } from '../../../agent/filesystem/f2fs-superblock.ts';
import { parseFatBootSector } from '../../../agent/filesystem/fat-layout.ts';
import { parsePartcloneMap } from '../../../agent/filesystem/partclone-map.ts';
import { parseFreeExtent, parseLogState, parseXfsSuperblock } from '../../../agent/filesystem/xfs.ts';

const MIB = 1024 * 1024;
const fixture = (path: string): string => readFileSync(`test/fixtures/tools/${path}`, 'utf8');

test('the superblock of an XFS, from xfs_db 6.1 and 6.13', (t) => {
  const common = { blockSize: 4096, groups: 4, realtimeBlocks: 0 };
  const old = parseXfsSuperblock(fixture('xfs/xfs_db-sb-6.1.txt'));
  t.like(old, { ...common, blocks: 76800, groupBlocks: 19200, incompatible: 0xb, readOnlyCompatible: 0xd });
  const now = parseXfsSuperblock(fixture('xfs/xfs_db-sb-6.13.txt'));
  t.like(now, { ...common, blocks: 81920, freeBlocks: 64018, logStart: 65543, incompatible: 0x2b });
  t.throws(() => parseXfsSuperblock('xfs_db: cannot init perag data'), { code: 'TOOL_FAILED' });
});

test('free extents of an XFS add up to what its superblock counts', (t) => {
  for (const version of ['6.1', '6.13']) {
    const lines = fixture(`xfs/xfs_db-freesp-${version}.txt`).split('\n');
    const free = lines.flatMap((line) => parseFreeExtent(line) ?? []);
    const { freeBlocks, groups } = parseXfsSuperblock(fixture(`xfs/xfs_db-sb-${version}.txt`));
    const listed = free.reduce((sum, { blocks }) => sum + blocks, 0);
    // the blocks that a group keeps for its own trees
    t.true(Math.abs(listed - freeBlocks) <= 16 * groups, `${listed} of ${freeBlocks}`);
  }
  t.is(parseFreeExtent('   from      to extents  blocks    pct'), null);
  t.is(parseFreeExtent('      1       1      17      17   0.03'), null);
});

test('the log of an XFS is clean, dirty, or not to be read', (t) => {
  t.is(parseLogState(fixture('xfs/xfs_logprint-clean-6.1.txt')), 'clean');
  t.is(parseLogState(fixture('xfs/xfs_logprint-clean-6.13.txt')), 'clean');
  t.is(parseLogState(fixture('xfs/xfs_logprint-dirty-6.13.txt')), 'dirty');
  t.is(parseLogState('xfs_logprint: failed to find head and tail, error: 22'), null);
});

test('the superblock of a btrfs, from btrfs-progs 6.2 and 6.14', (t) => {
  const old = parseBtrfsSuperblock(fixture('btrfs/super-6.2.txt'));
  t.like(old, { devices: 1, deviceId: 1, totalBytes: 314572800, nodeSize: 16384, logRoot: 0 });
  const now = parseBtrfsSuperblock(fixture('btrfs/super-6.14.txt'));
  t.like(now, { bytesUsed: 1036288, incompatible: 0x371n, readOnlyCompatible: 3n, seeding: false });
  t.is(parseBtrfsSuperblock(fixture('btrfs/super-log-tree-6.14.txt')).logRoot, 32096256);
  t.is(parseBtrfsSuperblock(fixture('btrfs/super-block-group-tree-6.14.txt')).readOnlyCompatible, 0xbn);
});

test('a btrfs superblock with a wrong checksum, or with a label that plays a field, is not believed', (t) => {
  const text = fixture('btrfs/super-6.14.txt');
  t.throws(() => parseBtrfsSuperblock(text.replace('[match]', "[DON'T MATCH]")), {
    code: 'FILESYSTEM_CHECK_FAILED',
  });
  const label = text.replace(/^label.*$/m, 'label\t\t\ta\nlog_root\t\t0');
  t.throws(() => parseBtrfsSuperblock(label), { code: 'TOOL_FAILED' });
});

test('chunks and extents of a btrfs: DUP has two places, a tree block has the size of a node', (t) => {
  for (const version of ['6.2', '6.14']) {
    const chunks = parseBtrfsChunks(fixture(`btrfs/chunk-${version}.txt`));
    t.is(chunks[0]?.profile, 'DATA|single');
    t.deepEqual(chunks[1]?.copies, version === '6.2' ? [22020096, 30408704] : [22020096, 30408704]);
    const lines = fixture(`btrfs/extent-${version}.txt`).split('\n');
    const extents = lines.flatMap((line) => parseBtrfsExtent(line, 16384) ?? []);
    t.deepEqual(extents[0], { offset: 13631488, length: 4096 });
    t.true(extents.every(({ length }) => length > 0));
  }
  const all = fixture('btrfs/extent-6.14.txt').split('\n');
  const used = all.flatMap((line) => parseBtrfsExtent(line, 16384) ?? []);
  t.is(totalLength(used), parseBtrfsSuperblock(fixture('btrfs/super-6.14.txt')).bytesUsed);
});

test('a btrfs that spreads data over devices or is not understood is not believed', (t) => {
  const text = fixture('btrfs/chunk-6.14.txt');
  const broken = [
    text.replace('DATA|single', 'DATA|RAID0'),
    text.replace('METADATA|DUP', 'METADATA|RAID1'),
    text.replace('num_stripes 2', 'num_stripes 3'),
    text.replace(/\t\t\tstripe 0 devid 1 offset 13631488\n/, ''),
    '',
  ];
  for (const one of broken) t.throws(() => parseBtrfsChunks(one), { code: 'TOOL_FAILED' });
});

test('partclone’s map of a btrfs, recorded from 0.3.36', (t) => {
  const map = parsePartcloneMap(fixture('partclone/btrfs-0.3.36.map'), fixture('partclone/btrfs-0.3.36.log'));
  t.is(map.covered, 320 * MIB);
  t.is(map.blockSize, 16384);
});

test('what fsck.f2fs 1.15 and 1.16 say of a sound filesystem, and of others', (t) => {
  for (const version of ['1.15', '1.16']) {
    const text = fixture(`f2fs/fsck-${version}.txt`);
    t.true(isF2fsSound(text), version);
    t.false(isF2fsSound(text.replace('[Ok..] [0x0]', '[Fail] [0x3]')));
    t.false(isF2fsSound(`[ASSERT] (fsck_chk_inode_blk:795)  --> [0x7] i_links\n${text}`));
    t.false(isF2fsSound(text.split('\n').slice(0, 20).join('\n')));
  }
  t.false(isF2fsSound(''));
});

test('the blocks that fsck.f2fs -d 1 counts', (t) => {
  const line = '[build_sit_area_bitmap:2496] Blocks [0x2ee : 750] Free Segs [0x21 : 33]';
  t.is(parseSegmentBlocks(line), 750);
  t.is(parseSegmentBlocks(line.replace('2496', '2503').replace('0x2ee', '0x     2ee')), 750);
  t.is(parseSegmentBlocks(`[__chk_dentries:1713] name[${line}]`), null);
});

test('what fsck.exfat 1.2.0 and 1.2.9 say of a sound filesystem', (t) => {
  t.true(isExfatSound(fixture('exfat/fsck-1.2.0.txt')));
  t.true(isExfatSound(fixture('exfat/fsck-1.2.9.txt')));
  t.false(isExfatSound('/dev/sda1: corrupted. directories 2, files 3'));
});

test('boot sectors of nothing are not believed', (t) => {
  const zero = Buffer.alloc(4096);
  t.throws(() => parseF2fsSuperblock(zero), { code: 'FILESYSTEM_CHECK_FAILED' });
  t.throws(() => parseF2fsCheckpoint(zero), { code: 'FILESYSTEM_CHECK_FAILED' });
  t.throws(() => parseExfatBootSector(zero), { code: 'FILESYSTEM_CHECK_FAILED' });
  t.throws(() => parseFatBootSector(zero), { code: 'FILESYSTEM_CHECK_FAILED' });
});

test('free blocks of an ext group, and not the count in its superblock', (t) => {
  t.deepEqual(parseFreeBlocks('  Free blocks: 518-1024, 2048', 1024), [
    { offset: 518 * 1024, length: 507 * 1024 },
    { offset: 2048 * 1024, length: 1024 },
  ]);
  for (const line of ['Free blocks:              61428', '  Free blocks: ', '  Free inodes: 12-2048']) {
    t.deepEqual(parseFreeBlocks(line, 1024), []);
  }
});

test('an ext whose journal is on another device says so', (t) => {
  const text = fixture('dumpe2fs/clean.txt');
  t.false(parseDumpe2fs(text).externalJournal);
  t.true(parseDumpe2fs(text.replace(/^Journal inode:.*\n/m, '')).externalJournal);
});

test('runs of set bits are exactly the bits that are set', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 20 }), (bytes) => {
      const found = new Set<number>();
      for (const { offset, length } of setBits(bytes)) {
        for (let bit = offset; bit < offset + length; bit += 1) found.add(bit);
      }
      for (let bit = 0; bit < bytes.length * 8; bit += 1) {
        const set = ((bytes[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0;
        if (found.has(bit) !== set) throw new Error(`bit ${bit}`);
      }
    }),
  );
  t.deepEqual(setBits(Uint8Array.of(0xfe, 0xff, 0x01)), [{ offset: 1, length: 16 }]);
});

test('extents and what lies between them make the whole', (t) => {
  const extent = fc.record({ offset: fc.nat(60), length: fc.integer({ min: 1, max: 20 }) });
  fc.assert(
    fc.property(fc.array(extent, { maxLength: 12 }), fc.integer({ min: 1, max: 70 }), (extents, limit) => {
      const between = invertExtents(extents, limit);
      const inside = new Set(
        extents.flatMap(({ offset, length }) => Array.from({ length }, (_, at) => offset + at)),
      );
      const free = new Set(
        between.flatMap(({ offset, length }) => Array.from({ length }, (_, at) => offset + at)),
      );
      for (let at = 0; at < 90; at += 1) {
        if (free.has(at) !== (at < limit && !inside.has(at))) throw new Error(`at ${at}`);
      }
    }),
  );
  t.pass();
});

test('two views that differ by more than a little are not united', (t) => {
  const partclone = [{ offset: 0, length: 4096 }];
  const view = { name: 'dumpe2fs', extents: [{ offset: 4096, length: 8192 }] };
  t.deepEqual(uniteViews('/dev/x', partclone, { ...view, tolerance: 8192 }, 12288), [
    { offset: 0, length: 12288 },
  ]);
  t.throws(() => uniteViews('/dev/x', partclone, { ...view, tolerance: 4096 }, 12288), {
    code: 'TOOL_FAILED',
  });
});
