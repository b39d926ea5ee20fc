import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { run } from '../../../agent/process/run.ts';

const MIB = 1024 * 1024;
/** where realistic bytes come from: what an installed system is made of */
const SYSTEM = ['/usr/lib', '/usr/share', '/usr/bin', '/usr/include'];

/** A sequence of numbers in 0..1 that is the same in every run (mulberry32). */
export const seeded = (seed: number): (() => number) => {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
};

/** A loop device over a file in RAM. */
export const attach = async (file: string): Promise<string> => {
  const { stdout } = await run('losetup', ['--find', '--show', file]);
  return stdout.trim();
};

export const detach = async (device: string): Promise<void> => {
  await run('losetup', ['--detach', device]);
};

export const sparseFile = async (file: string, size: number): Promise<void> => {
  const handle = await open(file, 'w');
  await handle.truncate(size);
  await handle.close();
};

export const mounted = async <T>(device: string, place: string, work: () => Promise<T>): Promise<T> => {
  await mkdir(place, { recursive: true });
  await run('mount', [device, place]);
  try {
    return await work();
  } finally {
    await run('umount', [place]);
  }
};

/**
 * An ext4 with `dataMib` of files, as an installed machine has them: four fifths system files of this machine
 * (programs, libraries, text), one fifth that does not compress (pictures, archives), the latter in one file
 * of a tenth and many of 64 KiB to 1 MiB.
 */
export const fillFilesystem = async (device: string, place: string, dataMib: number): Promise<void> => {
  await run('mkfs.ext4', ['-q', '-F', device]);
  await mounted(device, place, async () => {
    const random = seeded(1);
    let left = dataMib * MIB * 0.8;
    for (const folder of SYSTEM) {
      for await (const file of regularFiles(folder)) {
        if (left <= 0) break;
        const { size } = await stat(file);
        // one browser's program has a quarter of a gigabyte
        if (size > left) continue;
        const target = join(place, 'system', file);
        await mkdir(join(target, '..'), { recursive: true });
        await pipeline(createReadStream(file), (await open(target, 'w')).createWriteStream());
        left -= size;
      }
    }
    await mkdir(join(place, 'data'), { recursive: true });
    await writeFile(join(place, 'data', 'large'), noise(random, Math.floor(dataMib * MIB * 0.1)));
    let rest = dataMib * MIB * 0.1 + Math.max(0, left);
    for (let number = 0; rest > 0; number += 1) {
      const bytes = 65536 + Math.floor(random() * 983_040);
      await writeFile(join(place, 'data', `file-${number}`), noise(random, bytes));
      rest -= bytes;
    }
  });
};

/**
 * An NTFS with `dataMib` of such files: ntfscp writes them into it, so that no kernel driver is needed. Files of 128 KiB
 * and more only, since each is a call.
 */
export const fillNtfs = async (device: string, folder: string, dataMib: number): Promise<void> => {
  await run('mkntfs', ['--fast', '--force', '--quiet', device]);
  const copy = async (file: string, name: string): Promise<void> => {
    await run('ntfscp', ['--force', '--quiet', device, file, name]);
  };
  let left = dataMib * MIB * 0.8;
  let number = 0;
  for (const root of SYSTEM) {
    for await (const file of regularFiles(root)) {
      if (left <= 0) break;
      const { size } = await stat(file);
      if (size < 131_072 || size > left) continue;
      await copy(file, `file-${number++}`);
      left -= size;
    }
  }
  const media = join(folder, 'media');
  await writeFile(media, noise(seeded(1), Math.floor(dataMib * MIB * 0.2 + Math.max(0, left))));
  await copy(media, 'media');
  await rm(media);
};

/**
 * Change `share` of the data: half of it in one run in one file, half as 4 KiB edits in 500 files; delete
 * `deletions` files. Returns the changed bytes.
 */
export const editFiles = async (
  place: string,
  share: number,
  dataMib: number,
  deletions: number,
  seed: number,
): Promise<number> => {
  const random = seeded(seed);
  const half = Math.floor((dataMib * MIB * share) / 2);
  const large = await open(join(place, 'data', 'large'), 'r+');
  await large.write(noise(random, half), 0, half, 4096 * Math.floor(random() * 100));
  await large.close();
  const files: string[] = [];
  for await (const file of regularFiles(join(place, 'system'))) {
    if ((await stat(file)).size >= 8192) files.push(file);
  }
  const pick = (): string | undefined => files.splice(Math.floor(random() * files.length), 1)[0];
  const chosen = Array.from({ length: Math.min(500, files.length >> 1) }, pick);
  for (let done = 0, turn = 0; done < half; done += 4096, turn += 1) {
    const file = chosen[turn % chosen.length];
    if (file === undefined) break;
    const handle = await open(file, 'r+');
    const pages = Math.floor((await handle.stat()).size / 4096);
    await handle.write(noise(random, 4096), 0, 4096, 4096 * Math.floor(random() * pages));
    await handle.close();
  }
  for (let number = 0; number < deletions; number += 1) {
    const file = pick();
    if (file !== undefined) await rm(file);
  }
  return half * 2;
};

async function* regularFiles(folder: string): AsyncGenerator<string> {
  const entries = await readdir(folder, { withFileTypes: true });
  for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* regularFiles(path);
    else if (entry.isFile()) yield path;
  }
}

const noise = (random: () => number, length: number): Uint8Array => {
  const bytes = new Uint32Array(Math.ceil(length / 4));
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = random() * 4294967296;
  return new Uint8Array(bytes.buffer, 0, length);
};
