import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { ChunkSource } from '../../agent/image/chunk-store.ts';
import type { Extent } from '../../agent/image/extent.ts';
import { type ChunkPool, createPool } from '../../agent/image/pool.ts';
import { run } from '../../agent/process/run.ts';
import { bytesOf } from '../agent/image/helpers.ts';

export const MIB = 1024 * 1024;

export const folderOf = async (t: ExecutionContext): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'image-loop-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
};

export const poolOf = (t: ExecutionContext, memory = 176 * MIB): ChunkPool => {
  const pool = createPool({ memory });
  t.teardown(() => pool.close());
  return pool;
};

/** A loop device over a new sparse file of `size` bytes; gone when the test has ended. */
export const loopDevice = async (t: ExecutionContext, file: string, size: number): Promise<string> => {
  const handle = await open(file, 'a');
  await handle.truncate(size);
  await handle.close();
  const { stdout } = await run('losetup', ['--find', '--show', file]);
  const device = stdout.trim();
  t.teardown(async () => {
    await run('losetup', ['--detach', device]);
  });
  return device;
};

/** An ext4 with directories, large and small files, holes, and space freed again with data left in it. */
export const makeExt4 = async (device: string, folder: string, files = 60): Promise<void> => {
  await run('mkfs.ext4', ['-q', '-F', device]);
  await mounted(device, folder, async (root) => {
    for (let number = 0; number < files; number += 1) {
      const place = join(root, `folder-${number % 7}`);
      await mkdir(place, { recursive: true });
      await writeFile(join(place, `file-${number}`), bytesOf(number, 1000 + number * 17_000));
    }
    await writeFile(join(root, 'freed'), bytesOf(999, 3 * MIB));
    await run('sync', ['-f', root]);
    await rm(join(root, 'freed'));
    const copy = join(root, 'copy');
    await mkdir(copy);
    const repeated = bytesOf(7, 5 * MIB);
    for (const name of ['one', 'two']) await writeFile(join(copy, name), repeated);
  });
};

export const mounted = async (
  device: string,
  folder: string,
  work: (root: string) => Promise<void>,
  options = 'rw',
): Promise<void> => {
  const root = await mkdtemp(join(folder, 'mount-'));
  await run('mount', ['-o', options, device, root]);
  try {
    await work(root);
  } finally {
    await run('umount', [root]);
  }
};

/** What partclone says that ext4 uses. */
export const usedExtents = async (device: string, folder: string): Promise<Extent[]> => {
  const map = join(folder, `map-${Math.random()}`);
  await run('partclone.extfs', ['-D', '-s', device, '-o', map, '-L', `${map}.log`, '-f', '1', '-q']);
  const lines = (await readFile(map, 'utf8')).split('\n');
  return lines.flatMap((line) => {
    const [, offset, length] = /^(0x[0-9a-fA-F]+)\s+(0x[0-9a-fA-F]+)\s+\+$/.exec(line) ?? [];
    return offset && length ? [{ offset: Number(offset), length: Number(length) }] : [];
  });
};

/** Every file with its hash, as find and sha256sum see them. */
export const fileHashes = async (device: string, folder: string): Promise<string> => {
  let hashes = '';
  await mounted(
    device,
    folder,
    async (root) => {
      const { stdout } = await run('find', [root, '-type', 'f', '-exec', 'sha256sum', '{}', '+']);
      hashes = stdout.replaceAll(root, '').split('\n').toSorted().join('\n');
    },
    'ro,noload',
  );
  return hashes;
};

export const fsck = async (device: string): Promise<void> => {
  await run('e2fsck', ['-f', '-n', device]);
};

/** The store over anything that is not this machine's folder: counts what it serves. */
export const counted = (store: ChunkSource): ChunkSource & { served: string[] } => {
  const served: string[] = [];
  return {
    served,
    async *fetch(ids, signal) {
      for await (const chunk of store.fetch(ids, signal)) {
        served.push(chunk.id);
        yield chunk;
      }
    },
  };
};
