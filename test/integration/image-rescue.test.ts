import { copyFile, mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { captureRange } from '../../agent/image/capture.ts';
import { deployRange } from '../../agent/image/deploy.ts';
import { openLocalStore } from '../../agent/image/local-store.ts';
import { run } from '../../agent/process/run.ts';
import { filesAt } from '../../agent/tasks/files-at.ts';
import { folderOf, loopDevice, MIB, mounted, poolOf, usedExtents } from './image-helpers.ts';

const BLOCK = 4096;
const SIZE = 48 * MIB;
const CHUNK = 256 * 1024;

const marker = (name: string): Buffer => Buffer.alloc(BLOCK, `marker of ${name}. `);

interface SickDisk {
  device: string;
  /** the same ext4 without bad sectors */
  sound: string;
  folder: string;
  /** where these markers lie in the filesystem, bytes */
  places: Record<string, number>;
}

/**
 * A block device with real read errors, on a kernel without device-mapper: an ext4 in a file on btrfs, whose medium is
 * then changed behind btrfs's back, so that its checksums do not match: EIO for those 4 KiB.
 */
const sickDisk = async (t: ExecutionContext, hurt: readonly string[]): Promise<SickDisk> => {
  const folder = await folderOf(t);
  const sound = join(folder, 'sound');
  const plain = await loopDevice(t, sound, SIZE);
  await run('mkfs.ext4', ['-q', '-F', '-b', String(BLOCK), plain]);
  await mounted(plain, folder, async (root) => {
    for (const name of ['one', 'two', 'three']) {
      await mkdir(join(root, name));
      const body = Buffer.concat([
        Buffer.alloc(5 * BLOCK, name),
        marker(name),
        Buffer.alloc(MIB, `x${name}`),
      ]);
      await writeFile(join(root, name, 'file'), body);
    }
    await writeFile(join(root, 'freed'), marker('freed'));
    await run('sync', ['-f', root]);
    await rm(join(root, 'freed'));
  });
  await run('blockdev', ['--flushbufs', plain]);

  const medium = join(folder, 'medium');
  const under = await loopDevice(t, medium, 160 * MIB);
  await run('mkfs.btrfs', ['-q', '--data', 'single', '--metadata', 'single', under]);
  await mounted(under, folder, (root) => copyFile(sound, join(root, 'disk'), 0));
  await run('blockdev', ['--flushbufs', under]);
  await using file = await open(medium, 'r+');
  for (const name of hurt) {
    const [at = -1, ...more] = await offsetsOf(medium, name);
    t.true(at > 0 && more.length === 0, `${name} lies on the medium once`);
    await file.write(Buffer.from('rot'), 0, 3, at + 100);
  }
  await file.sync();

  const root = await mkdtemp(join(folder, 'btrfs-'));
  await run('mount', ['-o', 'ro', under, root]);
  t.teardown(async () => {
    await run('umount', [root]);
  });
  const { stdout } = await run('losetup', ['--find', '--show', '--read-only', join(root, 'disk')]);
  const device = stdout.trim();
  t.teardown(async () => {
    await run('losetup', ['--detach', device]);
  });
  const places: Record<string, number> = {};
  for (const name of hurt) places[name] = (await offsetsOf(sound, name))[0] ?? -1;
  return { device, sound, folder, places };
};

const offsetsOf = async (path: string, name: string): Promise<number[]> => {
  const content = await readFile(path);
  const offsets: number[] = [];
  for (let at = content.indexOf(marker(name)); at >= 0; at = content.indexOf(marker(name), at + 1)) {
    offsets.push(at);
  }
  return offsets;
};

const capture = async (t: ExecutionContext, { device, sound, folder }: SickDisk, rescue: boolean) => {
  const pool = poolOf(t);
  const sink = openLocalStore(join(folder, 'chunks'), pool);
  // the map of the sound one: partclone's own reads are not what is tested
  const extents = await usedExtents(sound, folder);
  const range = { device, start: 0, size: SIZE, extents, chunkSize: CHUNK };
  const messages: number[] = [];
  const onRescue = (chunks: number): void => void messages.push(chunks);
  const captured = await captureRange({ ...range, level: 1, sink, pool, rescue, onRescue });
  return { captured, sink, pool, messages };
};

test.serial('a used block that cannot be read: refused, with its sectors and its file', async (t) => {
  const disk = await sickDisk(t, ['one', 'three']);
  const error = await t.throwsAsync(capture(t, disk, false), { code: 'DISK_READ_FAILED' });
  const details = (error as unknown as { details: Record<string, unknown> }).details;
  const lbas = Object.values(disk.places).map((place) => place / 512);
  const [range] = details['ranges'] as { lba: number; sectors: number }[];
  t.true(lbas.includes(range?.lba ?? -1), `${range?.lba} of ${lbas}`);
  t.is(range?.sectors, BLOCK / 512);
  t.is(details['lba'], range?.lba);
  t.true(details['isComplete']);
  t.regex(
    error?.message ?? '',
    new RegExp(`unreadable sectors here: ${range?.lba}-${(range?.lba ?? 0) + 7}$`),
  );
  const offset = (range?.lba ?? 0) * 512;
  const name = Object.entries(disk.places).find(([, place]) => place === offset)?.[0];
  const { signal } = new AbortController();
  const files = await filesAt(disk.sound, 'ext4', [{ offset, length: BLOCK }], signal);
  t.deepEqual(files, [`/${name}/file`]);
});

test.serial(
  'rescue: exactly the bad blocks are listed and zero, everything else is the source',
  async (t) => {
    const disk = await sickDisk(t, ['one', 'three', 'freed']);
    const { captured, sink, pool, messages } = await capture(t, disk, true);
    const expected = ['one', 'three'].map((name) => ({ offset: disk.places[name] ?? -1, length: BLOCK }));
    t.deepEqual(
      captured.damaged,
      expected.toSorted((a, b) => a.offset - b.offset),
    );
    t.deepEqual(messages.length, 1);
    const target = join(disk.folder, 'target');
    await copyFile(disk.sound, target);
    const { index, map } = captured;
    await deployRange({ device: target, start: 0, index, map, chunkSize: CHUNK, source: sink, pool });
    const wanted = await readFile(disk.sound);
    for (const { offset, length } of expected) wanted.fill(0, offset, offset + length);
    const got = await readFile(target);
    for (const { offset, length } of await usedExtents(disk.sound, disk.folder)) {
      t.true(
        got.subarray(offset, offset + length).equals(wanted.subarray(offset, offset + length)),
        `${offset}`,
      );
    }
  },
);

test.serial('a bad block that nobody uses is no matter', async (t) => {
  const disk = await sickDisk(t, ['freed']);
  const whole = run('dd', [`if=${disk.device}`, 'of=/dev/null', 'bs=1M']);
  await t.throwsAsync(whole, { code: 'TOOL_FAILED' }, 'it is bad indeed');
  const { captured } = await capture(t, disk, false);
  t.deepEqual(captured.damaged, []);
});
