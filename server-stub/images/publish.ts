import { copyFile, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ImagingError, isErrno } from '../../agent/errors.ts';
import type { ImageFile, Manifest } from '../../agent/protocol/index.ts';
import type { State } from '../state.ts';
import { forgetChunks, soundChunks } from '../store/chunks.ts';
import { saveVersion } from '../store/images.ts';
import { endUpload, type Upload } from '../store/uploads.ts';
import { hashFile, syncPath, writeWhole } from './durable.ts';
import { uploadFolder } from './uploads.ts';
import {
  filesOf,
  MANIFEST,
  readIndexes,
  readVersion,
  SIGNATURE,
  sha256Of,
  type VersionIndex,
  versionFolder,
} from './version-folder.ts';

/**
 * Make a version out of an upload: everything that the manifest names is there and agrees, every chunk
 * lies in the store. The version begins to exist when `manifest.json` gets its name; a crash before
 * leaves no version, and the same call may be repeated after a crash at any point.
 *
 * @throws ImagingError IMAGE_INVALID, CHUNK_MISSING, STORE_FULL
 */
export const publishVersion = (state: State, upload: Upload, manifest: Manifest): Promise<void> =>
  state.library.lock.exclusive(async () => {
    const { image, version } = upload;
    if (manifest.image !== image || manifest.version !== version) {
      const named = `${manifest.image}@${manifest.version}`;
      throw new ImagingError(
        'IMAGE_INVALID',
        `Cannot publish ${named}: the upload is of ${image}@${version}`,
      );
    }
    const text = `${JSON.stringify(manifest, null, 2)}\n`;
    const folder = versionFolder(state.paths.images, image, version);
    const before = await readVersion(folder);
    if (before && before.text !== text) {
      throw new ImagingError(
        'CONFLICT',
        `Cannot publish ${image}@${version}: it exists with another content`,
      );
    }
    if (!before) {
      const files = filesOf(manifest);
      await requireFiles(uploadFolder(state, upload.id), files);
      await requireChunks(state, await readIndexes(uploadFolder(state, upload.id), manifest));
      await writeFolder(state, folder, uploadFolder(state, upload.id), files, text);
    }
    await enterVersion(state, manifest, text, await readIndexes(folder, manifest));
    await endUpload(state.db, upload.id, 'published');
    await rm(uploadFolder(state, upload.id), { recursive: true, force: true });
    state.announce({ kind: 'image', subject: image, data: { version, what: 'published' } });
  });

/** The database's row of a version that exists; also used when rows are rebuilt from manifests. */
export const enterVersion = (
  state: State,
  manifest: Manifest,
  text: string,
  index: VersionIndex,
): Promise<void> =>
  saveVersion(state.db, {
    image: manifest.image,
    version: manifest.version,
    createdAt: manifest.createdAt,
    diskBytes: manifest.disks.reduce((sum, { size }) => sum + size, 0),
    usedBytes: index.bytes,
    chunks: index.ids.size,
    manifestSha256: sha256Of(text),
    hurt: [],
    derivedFrom: manifest.derivedFrom,
  });

const requireFiles = async (folder: string, files: readonly ImageFile[]): Promise<void> => {
  for (const { name, size, sha256 } of files) {
    const found = await hashFile(join(folder, name)).catch((error: unknown) => {
      if (isErrno(error, 'ENOENT')) return undefined;
      throw error;
    });
    if (found?.size === size && found.sha256 === sha256) continue;
    const reason = found ? `has ${found.size} bytes and SHA-256 ${found.sha256}` : 'was not uploaded';
    throw new ImagingError('IMAGE_INVALID', `Cannot publish: ${name} ${reason}`, { details: { file: name } });
  }
};

/** Looked up in the database and once more on the disk itself. */
const requireChunks = async (state: State, { ids }: VersionIndex): Promise<void> => {
  const all = [...ids];
  const known = await soundChunks(state.db, all);
  const gone = await state.library.store.missing(
    all.filter((id) => known.has(id)),
    new AbortController().signal,
  );
  await forgetChunks(state.db, [...gone]);
  const missing = all.filter((id) => !known.has(id) || gone.has(id));
  if (missing.length === 0) return;
  throw new ImagingError('CHUNK_MISSING', `Cannot publish: ${missing.length} chunks are not in the store`, {
    details: { count: missing.length, ids: missing.slice(0, 100) },
  });
};

const writeFolder = async (
  state: State,
  folder: string,
  from: string,
  files: readonly ImageFile[],
  text: string,
): Promise<void> => {
  // remains of a publication that was cut off
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  for (const { name } of files) {
    await copyFile(join(from, name), join(folder, name));
    await syncPath(join(folder, name));
  }
  await writeWhole(join(folder, SIGNATURE), `${state.key.sign(text)}\n`);
  await syncPath(folder);
  await writeWhole(join(folder, MANIFEST), text);
  for (const path of [folder, join(folder, '..'), state.paths.images]) await syncPath(path);
};
