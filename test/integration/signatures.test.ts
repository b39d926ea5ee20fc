import test from 'ava';
import { readAt, writeAt } from '../../agent/disk/device-io.ts';
import { clearStaleSignatures, findSignatures } from '../../agent/disk/signatures.ts';
import { driverFor } from '../../agent/filesystem/index.ts';
import { probe } from '../../agent/filesystem/probe.ts';
import { run } from '../../agent/process/run.ts';
import { attachLoop, MIB } from './loop-device.ts';

const { signal } = new AbortController();
const SIZE = 64 * MIB;
/** include/uapi/linux/raid/md_p.h: a superblock of version 0.90 lies in the last 64 KiB that are aligned so */
const MD_OFFSET = SIZE - 65536;

const mdSuperblock = (): Buffer => {
  const block = Buffer.alloc(4096);
  const words = [0xa92b4efc, 0, 90, 0, 0, 0x12345678, 0x5f000000, 1, (SIZE - 65536) / 1024, 2, 2, 0, 0];
  for (const [at, word] of words.entries()) block.writeUInt32LE(word, at * 4);
  return block;
};

test('what a former RAID left in free space goes, what the filesystem uses stays', async (t) => {
  const { path } = await attachLoop(t, SIZE);
  await run('mkfs.ext4', ['-q', path]);
  await writeAt(path, [{ offset: MD_OFFSET, bytes: mdSuperblock() }]);
  await run('blockdev', ['--flushbufs', path]);
  const types = async () =>
    (await findSignatures(path)).map(({ type }) => type).toSorted((a, b) => a.localeCompare(b));
  t.deepEqual(await types(), ['ext4', 'linux_raid_member']);
  t.not((await probe(path)).type, 'ext4', 'a system that asks libblkid would not find its root');

  const usage = await driverFor('ext4')?.usage(path, SIZE, signal);
  const cleared = await clearStaleSignatures(path, usage?.extents ?? []);
  t.deepEqual(
    cleared.map(({ type, offset }) => ({ type, offset })),
    [{ type: 'linux_raid_member', offset: MD_OFFSET }],
  );
  t.deepEqual(await types(), ['ext4']);
  t.is((await probe(path)).type, 'ext4');
  await run('e2fsck', ['-f', '-n', path]);
});

test('a signature inside used blocks is never touched', async (t) => {
  const { path } = await attachLoop(t, SIZE);
  await run('mkfs.ext4', ['-q', path]);
  await writeAt(path, [{ offset: MD_OFFSET, bytes: mdSuperblock() }]);
  await run('blockdev', ['--flushbufs', path]);
  t.deepEqual(await clearStaleSignatures(path, [{ offset: 0, length: SIZE }]), []);
  t.deepEqual(await readAt(path, MD_OFFSET, 4096), mdSuperblock());
});
