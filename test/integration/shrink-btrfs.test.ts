import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { ImagingError } from '../../agent/errors.ts';
import { shrinkerFor } from '../../agent/filesystem/shrink.ts';
import { run } from '../../agent/process/run.ts';
import { bytesOf } from '../agent/image/helpers.ts';
import { MIB, memoryFolder, sparseFile, treeHashes, withLoop } from './shrink-helpers.ts';

const signal = new AbortController().signal;
const SIZE = 1024 * MIB;

/** btrfs whose data lies far apart: big files were deleted between small ones. */
const makeBtrfs = async (
  folder: string,
  bytes: number,
  between: number,
): Promise<{ file: string; hashes: string }> => {
  const file = await sparseFile(join(folder, 'btrfs.img'), SIZE);
  await run('mkfs.btrfs', ['-q', file]);
  const hashes = await withLoop(file, folder, async (root) => {
    for (let number = 0; number < 20; number += 1) {
      await writeFile(join(root, `keep-${number}`), bytesOf(number, Math.floor(bytes / 20)));
      await run('sh', ['-c', `head -c ${between} /dev/urandom > "$1"`, 'sh', join(root, `drop-${number}`)]);
      await run('sync', ['-f', root]);
    }
    await run('sh', ['-c', 'rm "$1"/drop-*; sync -f "$1"', 'sh', root]);
    return treeHashes(root);
  });
  return { file, hashes };
};

test('btrfs is made smaller in a process of its own, checked, and no mount or loop device stays', async (t) => {
  const folder = await memoryFolder(t);
  const { file, hashes } = await makeBtrfs(folder, 40 * MIB, 15 * MIB);
  const size = 400 * MIB;
  await shrinkerFor('btrfs')?.shrink(file, size, { signal });
  await run('truncate', ['-s', String(size), file]);
  await run('btrfs', ['check', '--readonly', file]);
  t.is(await withLoop(file, folder, treeHashes, 'loop,ro'), hashes);
  t.is((await run('losetup', ['--list', '--noheadings', '--associated', file])).stdout, '');
  t.false((await run('cat', ['/proc/mounts'])).stdout.includes(folder));
  t.deepEqual(await readdir(folder), ['btrfs.img']);
});

test('btrfs whose data does not fit is refused, and is what it was', async (t) => {
  const folder = await memoryFolder(t);
  const { file, hashes } = await makeBtrfs(folder, 300 * MIB, 0);
  for (const size of [270 * MIB, 200 * MIB]) {
    const shrinking = async () => shrinkerFor('btrfs')?.shrink(file, size, { signal });
    const error = await t.throwsAsync(shrinking, { instanceOf: ImagingError });
    t.is(error.code, 'TARGET_TOO_SMALL', error.message);
  }
  await run('btrfs', ['check', '--readonly', file]);
  t.is(await withLoop(file, folder, treeHashes, 'loop,ro'), hashes);
  t.deepEqual(await readdir(folder), ['btrfs.img']);
});

test('the helper takes a regular file and a size, nothing else', async (t) => {
  const folder = await memoryFolder(t);
  await mkdir(join(folder, 'dir'));
  const helper = new URL('../../agent/filesystem/shrink-btrfs-mounted.ts', import.meta.url).pathname;
  const file = await sparseFile(join(folder, 'empty.img'), MIB);
  for (const args of [
    [join(folder, 'dir'), '1'],
    ['/dev/null', '1'],
    [file],
    [file, '1; ls'],
    [file, '-1'],
    [],
  ]) {
    const { exitCode, stderr } = await run(process.execPath, [helper, ...args], { okExitCodes: [0, 1] });
    t.is(exitCode, 1, args.join(' '));
    t.regex(stderr, /Cannot resize/);
  }
});
