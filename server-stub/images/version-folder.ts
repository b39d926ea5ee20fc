import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ImagingError, isErrno } from '../../agent/errors.ts';
import { type ChunkIndex, decodeCaibx } from '../../agent/image/caibx.ts';
import {
  type ImageFile,
  imageNameSchema,
  type Manifest,
  manifestSchema,
  versionNumberSchema,
} from '../../agent/protocol/index.ts';

export const MANIFEST = 'manifest.json';
export const SIGNATURE = 'manifest.json.sig';

/** `<images>/<name>/<n>`; both parts are checked, wherever they came from. */
export const versionFolder = (images: string, image: string, version: number): string =>
  join(images, imageNameSchema.parse(image), String(versionNumberSchema.parse(version)));

export interface SignedText {
  text: string;
  manifest: Manifest;
  /** base64 */
  signature: string;
}

/** The manifest of a version, or undefined where there is no such version. @throws ImagingError IMAGE_INVALID */
export const readVersion = async (folder: string): Promise<SignedText | undefined> => {
  const text = await readFile(join(folder, MANIFEST), 'utf8').catch((error: unknown) => {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR')) return undefined;
    throw error;
  });
  if (text === undefined) return undefined;
  try {
    const signature = (await readFile(join(folder, SIGNATURE), 'utf8')).trim();
    return { text, manifest: manifestSchema.parse(JSON.parse(text)), signature };
  } catch (error) {
    throw new ImagingError('IMAGE_INVALID', `Cannot read the version in ${folder}: ${String(error)}`, {
      cause: error,
    });
  }
};

/** Every file that a manifest names: indexes, maps, boot areas. @throws ImagingError IMAGE_INVALID (a name twice) */
export const filesOf = (manifest: Manifest): ImageFile[] => {
  const files = manifest.disks.flatMap(({ bootArea, partitions }) => [
    ...(bootArea ? [bootArea] : []),
    ...partitions.flatMap(({ index, map }) => [...(index ? [index] : []), ...(map ? [map] : [])]),
  ]);
  if (new Set(files.map(({ name }) => name)).size !== files.length) {
    throw new ImagingError(
      'IMAGE_INVALID',
      `Cannot use the manifest of ${manifest.image}: a file is named twice`,
    );
  }
  return files;
};

export interface VersionIndex {
  /** every chunk of the version, each once */
  ids: Set<string>;
  /** plain bytes of these chunks */
  bytes: number;
}

/**
 * Read the indexes of a version from `folder` and check them against the manifest.
 * @throws ImagingError IMAGE_INVALID
 */
export const readIndexes = async (folder: string, manifest: Manifest): Promise<VersionIndex> => {
  const ids = new Set<string>();
  let bytes = 0;
  for (const { partitions } of manifest.disks) {
    for (const { index: file, size, name } of partitions) {
      if (!file) continue;
      const index = decodeCaibx(await readFile(join(folder, file.name)));
      requireAgreement(index, { chunks: file.chunks, size, chunkSize: manifest.chunkSize }, name);
      for (const [number, id] of index.ids.entries()) {
        if (ids.has(id)) continue;
        ids.add(id);
        bytes += Math.min(index.chunkSize, index.size - number * index.chunkSize);
      }
    }
  }
  return { ids, bytes };
};

/** Every folder that may hold a version, whether it has a manifest or not. */
export const versionFolders = async (images: string): Promise<{ image: string; version: number }[]> => {
  const all: { image: string; version: number }[] = [];
  for (const image of await readdir(images)) {
    if (!imageNameSchema.safeParse(image).success) continue;
    for (const number of await readdir(join(images, image))) {
      if (/^[1-9]\d{0,6}$/.test(number)) all.push({ image, version: Number(number) });
    }
  }
  return all;
};

export const sha256Of = (text: string): string => createHash('sha256').update(text).digest('hex');

const requireAgreement = (
  index: ChunkIndex,
  manifest: { chunks: number; size: number; chunkSize: number },
  name: string,
): void => {
  const found = { chunks: index.ids.length, size: index.size, chunkSize: index.chunkSize };
  for (const key of ['chunks', 'size', 'chunkSize'] as const) {
    if (found[key] === manifest[key]) continue;
    throw new ImagingError(
      'IMAGE_INVALID',
      `Cannot use the index of ${name}: its ${key} is ${found[key]}, the manifest says ${manifest[key]}`,
    );
  }
};
