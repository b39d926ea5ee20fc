import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { driverFor } from '../../agent/filesystem/index.ts';
import { decodeCaibx } from '../../agent/image/caibx.ts';
import { captureRange } from '../../agent/image/capture.ts';
import { createPool } from '../../agent/image/pool.ts';
import { run } from '../../agent/process/run.ts';
import type { ImagePartition, Manifest } from '../../agent/protocol/index.ts';
import type { Look } from '../../agent/volumes/volume.ts';
import type { ShrinkAnswer } from '../../server-stub/api.ts';
import { publishVersion } from '../../server-stub/images/publish.ts';
import { keepChunks, missingChunks, uploadFolder } from '../../server-stub/images/uploads.ts';
import type { State } from '../../server-stub/state.ts';
import { reserveVersion } from '../../server-stub/store/images.ts';
import { addUpload } from '../../server-stub/store/uploads.ts';
import { bytesOf } from '../agent/image/helpers.ts';
import type { TestServer } from '../server-stub/support.ts';

export const MIB = 1024 * 1024;
const signal = new AbortController().signal;
const ESP = 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b';
const LINUX = '0fc63daf-8483-4772-8e79-3d69d8477de4';

/** In RAM: nothing here is about what a disk keeps, and an fsync costs nothing. */
export const memoryFolder = async (t: ExecutionContext): Promise<string> => {
  const folder = await mkdtemp('/dev/shm/fog-shrink-');
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
};

export interface Part {
  /** content, of the partition's size */
  file: string;
  /** libblkid's name */
  type: string;
  size: number;
  role: ImagePartition['role'];
  /** keep every block, as a capture does where no map can be trusted */
  raw?: boolean;
  /** what the manifest says instead of what the tools say */
  minimumBytes?: number;
  /** what a capture finds where it looks into volumes: used bytes, and what is inside */
  look?: Pick<Look, 'extents' | 'contains'>;
}

/** A version as a capture makes one, from partitions in files: real maps, real minimums, published by the server. */
export const storeImage = async (state: State, image: string, parts: readonly Part[]): Promise<Manifest> => {
  const at = new Date();
  const version = await reserveVersion(state.db, image, at);
  const upload = await addUpload(state.db, { taskId: `test-${image}-${version}`, image, version }, at);
  const folder = uploadFolder(state, upload.id);
  await mkdir(folder, { recursive: true });
  const sink = {
    missing: async (ids: readonly string[]) => new Set(await missingChunks(state, upload, ids)),
    put: async (chunks: Parameters<typeof keepChunks>[2]) => {
      await keepChunks(state, upload, chunks, signal);
    },
  };
  const pool = createPool({ memory: 96 * MIB });
  const partitions: ImagePartition[] = [];
  let start = MIB;
  try {
    for (const [number, part] of parts.entries()) {
      const driver = part.raw || part.look ? null : driverFor(part.type);
      await driver?.check(part.file, signal);
      const usage = await driver?.usage(part.file, part.size, signal);
      const extents = part.look?.extents ?? usage?.extents ?? [{ offset: 0, length: part.size }];
      const common = { start: 0, size: part.size, extents, chunkSize: MIB, level: 3, sink, pool };
      const captured = await captureRange({ ...common, device: part.file });
      const name = `p${number + 1}`;
      await writeFile(join(folder, `${name}.caibx`), captured.index);
      await writeFile(join(folder, `${name}.map`), captured.map);
      partitions.push({
        ...{ name, number: number + 1, start, size: part.size, label: '', attributes: '' },
        type: part.role === 'esp' ? ESP : LINUX,
        uuid: `22222222-2222-2222-2222-00000000000${number}`,
        role: part.role,
        filesystem: {
          ...{ type: part.type, uuid: '', label: '' },
          minimumBytes: part.minimumBytes ?? usage?.minimumBytes ?? null,
          usedBytes: extents.reduce((sum, { length }) => sum + length, 0),
        },
        ...{
          method: usage || part.look ? 'used' : 'raw',
          reason: '',
          bootRecord: null,
          decryptedFrom: null,
          damaged: [],
        },
        contains: part.look?.contains ?? [],
        index: { ...fileOf(`${name}.caibx`, captured.index), chunks: Math.ceil(part.size / MIB) },
        map: fileOf(`${name}.map`, captured.map),
      });
      start += part.size;
    }
  } finally {
    await pool.close();
  }
  const manifest: Manifest = {
    ...{ format: 1, image, version, derivedFrom: null, createdAt: at.toISOString(), firmware: 'bios' },
    chunkSize: MIB,
    disks: [
      {
        ...{ name: 'd1', size: start + MIB, logicalSectorSize: 512, model: 'Disk', serial: 'S' },
        ...{ table: 'gpt', tableId: '11111111-1111-1111-1111-111111111111', bootArea: null, extended: null },
        partitions,
      },
    ],
    ...{ os: null, tools: {} },
  };
  await publishVersion(state, upload, manifest);
  return manifest;
};

const fileOf = (name: string, bytes: Uint8Array) => ({
  name,
  size: bytes.length,
  sha256: createHash('sha256').update(bytes).digest('hex'),
});

export const sparseFile = async (file: string, size: number): Promise<string> => {
  await using handle = await open(file, 'w');
  await handle.truncate(size);
  return file;
};

/** Files of many sizes in folders; ext4 spreads folders over its block groups, so some lie near the end. */
export const makeTree = async (folder: string, bytes: number): Promise<string> => {
  for (let number = 0; number < 40; number += 1) {
    const place = join(folder, `folder-${number % 8}`);
    await mkdir(place, { recursive: true });
    await writeFile(join(place, `file-${number}`), bytesOf(number, Math.floor((bytes * (number + 1)) / 820)));
  }
  return folder;
};

/** ext4 filled by the kernel, which spreads what it writes. */
export const makeExt4 = async (folder: string, size: number, tree: string): Promise<Part> => {
  const file = await sparseFile(join(folder, 'ext4.img'), size);
  await run('mkfs.ext4', ['-q', '-F', file]);
  await withLoop(file, folder, async (root) => {
    await run('cp', ['-r', `${tree}/.`, root]);
  });
  return { file, type: 'ext4', size, role: 'os' };
};

const NTFS_FILES = 15;

/** NTFS with files of the tree in its root. */
export const makeNtfs = async (folder: string, size: number, tree: string): Promise<Part> => {
  const file = await sparseFile(join(folder, 'ntfs.img'), size);
  await run('mkfs.ntfs', ['-q', '-F', '-f', file]);
  for (let number = 0; number < NTFS_FILES; number += 1) {
    await run('ntfscp', ['-f', file, join(tree, `folder-${number % 8}/file-${number}`), `/file-${number}`]);
  }
  return { file, type: 'ntfs', size, role: 'data' };
};

export const makeFat = async (folder: string, size: number): Promise<Part> => {
  const file = await sparseFile(join(folder, 'fat.img'), size);
  await run('mkfs.fat', ['-F', '32', file]);
  return { file, type: 'vfat', size, role: 'esp' };
};

/** Mounted through a loop device of its own, which goes with the mount. */
export const withLoop = async <T>(
  file: string,
  folder: string,
  work: (root: string) => Promise<T>,
  options = 'loop',
): Promise<T> => {
  const root = join(folder, `mount-${Math.random().toString(36).slice(2)}`);
  await mkdir(root);
  await run('mount', ['-o', options, file, root]);
  try {
    return await work(root);
  } finally {
    await run('umount', [root]);
    await rm(root, { recursive: true });
  }
};

export const treeHashes = async (root: string): Promise<string> => {
  const { stdout } = await run('find', [root, '-type', 'f', '-exec', 'sha256sum', '{}', '+']);
  return stdout.replaceAll(root, '').split('\n').filter(Boolean).toSorted().join('\n');
};

/** Every file of the NTFS that makeNtfs made, read by ntfscat: no mount. */
export const ntfsHashes = async (file: string): Promise<string[]> => {
  const hashes: string[] = [];
  for (let number = 0; number < NTFS_FILES; number += 1) {
    const { stdout } = await run('sh', [
      '-c',
      'ntfscat -f "$1" "$2" | sha256sum',
      'sh',
      file,
      `/file-${number}`,
    ]);
    hashes.push(stdout.trim());
  }
  return hashes;
};

/** The partition as casync puts it together. */
export const extract = async (data: string, image: string, version: number, name: string, out: string) => {
  const index = join(data, 'images', image, String(version), `${name}.caibx`);
  await run('casync', ['extract', `--store=${data}/chunks`, index, out], { timeoutMs: 120_000 });
  return out;
};

export const idsOf = async (data: string, image: string, version: number, name: string): Promise<string[]> =>
  decodeCaibx(await readFile(join(data, 'images', image, String(version), `${name}.caibx`))).ids;

export const askShrink = async (server: TestServer, image: string, version: number, body: object = {}) =>
  server.admin({ method: 'POST', url: `/api/images/${image}/versions/${version}/shrink`, payload: body });

/** Ask, and wait for the end. */
export const shrink = async (
  t: ExecutionContext,
  server: TestServer,
  image: string,
  version: number,
  body: object = {},
): Promise<ShrinkAnswer> => {
  const asked = await askShrink(server, image, version, body);
  t.is(asked.statusCode, 202, asked.body);
  return ended(server, asked.json() as ShrinkAnswer);
};

export const ended = async (server: TestServer, job: ShrinkAnswer): Promise<ShrinkAnswer> => {
  for (;;) {
    const answer = (await server.admin({ url: `/api/shrinks/${job.id}` })).json() as ShrinkAnswer;
    if (answer.state === 'done' || answer.state === 'failed') return answer;
    await sleep(50);
  }
};
