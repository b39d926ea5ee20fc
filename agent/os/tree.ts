import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, readlink, unlink } from 'node:fs/promises';
import { ImagingError, isErrno } from '../errors.ts';

/**
 * The root of a mounted filesystem as the only world there is. A captured disk's links lead where they
 * like: here an absolute one begins at this root and `..` ends there, as for the system that lives in it.
 */
export interface Tree extends AsyncDisposable {
  readonly root: FileHandle;
  /** names are matched without regard to case: NTFS, FAT */
  readonly ignoreCase: boolean;
}

const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_NOCTTY } = constants;
/** as many as the kernel follows */
const MAX_LINKS = 40;
/** where a name or a folder on the way is not there, or is something else */
const ABSENT = ['ENOENT', 'ENOTDIR', 'ELOOP', 'ENAMETOOLONG'];

export const openTree = async (folder: string, options: { ignoreCase?: boolean } = {}): Promise<Tree> => {
  const root = await open(folder, O_RDONLY | O_DIRECTORY);
  return { root, ignoreCase: options.ignoreCase === true, [Symbol.asyncDispose]: () => root.close() };
};

/**
 * Content of a regular file, at most `max` bytes of it; null where there is none. Links are followed
 * inside the tree.
 */
export const readInside = async (tree: Tree, path: string, max: number): Promise<Buffer | null> => {
  await using file = await openInside(tree, path, { follow: true });
  return file ? await readUpTo(file.handle, max) : null;
};

/** Names in a folder, sorted; none where there is no such folder. */
export const listInside = async (tree: Tree, path: string): Promise<string[]> => {
  await using place = await locate(tree, `${path}/.`, true);
  return place ? (await readdir(at(place.folder, '.'))).sort() : [];
};

export interface OpenFile extends AsyncDisposable {
  readonly handle: FileHandle;
}

/**
 * Open a regular file; null where there is none (or something else, or a link that is not to be
 * followed: `kindInside` tells).
 */
export const openInside = async (
  tree: Tree,
  path: string,
  options: { follow?: boolean; write?: boolean; create?: number } = {},
): Promise<OpenFile | null> => {
  await using place = await locate(tree, path, options.follow === true);
  if (!place) return null;
  const how = (options.write ? O_RDWR : O_RDONLY) | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
  let handle: FileHandle;
  try {
    handle = await open(
      at(place.folder, place.name),
      options.create === undefined ? how : how | O_CREAT | O_EXCL,
      options.create,
    );
  } catch (error) {
    // a fifo without a reader, a device on a mount without devices
    if ([...ABSENT, 'EISDIR', 'ENXIO', 'EACCES', 'ENODEV'].some((name) => isErrno(error, name))) return null;
    throw error;
  }
  const stats = await handle.stat();
  if (stats.isFile()) return { handle, [Symbol.asyncDispose]: () => handle.close() };
  await handle.close();
  return null;
};

export type Kind = 'file' | 'folder' | 'link' | 'other' | 'none';

/** What stands at a path; a link at its end is a link. */
export const kindInside = async (tree: Tree, path: string): Promise<Kind> => {
  await using place = await locate(tree, path, false);
  if (!place) return 'none';
  const names = await readdir(at(place.folder, '.'), { withFileTypes: true });
  const entry = names.find(({ name }) => name === place.name);
  if (!entry) return 'none';
  if (entry.isFile()) return 'file';
  if (entry.isDirectory()) return 'folder';
  return entry.isSymbolicLink() ? 'link' : 'other';
};

/** Make a folder where there is none; false where something else stands there, or its own folder is missing. */
export const makeFolderInside = async (tree: Tree, path: string): Promise<boolean> => {
  const kind = await kindInside(tree, path);
  if (kind !== 'none') return kind === 'folder';
  await using place = await locate(tree, path, false);
  if (!place) return false;
  await mkdir(at(place.folder, place.name), 0o755);
  await place.folder.sync();
  return true;
};

/** Remove a regular file, durably. False where there was none. */
export const removeInside = async (tree: Tree, path: string): Promise<boolean> => {
  if ((await kindInside(tree, path)) !== 'file') return false;
  await using place = await locate(tree, path, false);
  if (!place) return false;
  await unlink(at(place.folder, place.name));
  await place.folder.sync();
  return true;
};

/**
 * Write a whole file where it lies, durably: its inode stays, and with it owner, mode, access lists and
 * SELinux label, which a file renamed over it would lose. Not atomic, and need not be: the disk has no
 * partition table yet, and an attempt that is cut off begins from the image's own bytes. Made with
 * `mode` where there is none.
 *
 * @throws ImagingError OPTION_REFUSED: a link, a folder or a device stands there, or its folder is missing
 */
export const writeInside = async (
  tree: Tree,
  path: string,
  bytes: Uint8Array,
  mode: number,
): Promise<void> => {
  const kind = await kindInside(tree, path);
  if (kind !== 'file' && kind !== 'none') throw refused(path, `it is ${spoken[kind]}, and left as it is`);
  await using file = await openInside(tree, path, {
    write: true,
    ...(kind === 'none' ? { create: mode } : {}),
  });
  if (!file) throw refused(path, 'its folder is missing');
  await writeWhole(file.handle, bytes);
  if (kind === 'file') return;
  await using place = await locate(tree, path, false);
  await place?.folder.sync();
};

const spoken = { folder: 'a folder', link: 'a link', other: 'no regular file' } as const;

/** Replace a file's content, durably. */
export const writeWhole = async (file: FileHandle, bytes: Uint8Array): Promise<void> => {
  await file.truncate(bytes.length);
  for (let done = 0; done < bytes.length; ) {
    done += (await file.write(bytes, done, bytes.length - done, done)).bytesWritten;
  }
  await file.sync();
};

/** From the file's first byte to its end, `max` bytes at most. */
export const readUpTo = async (file: FileHandle, max: number): Promise<Buffer> => {
  const { size } = await file.stat();
  const bytes = Buffer.alloc(Math.min(size, max));
  let done = 0;
  while (done < bytes.length) {
    const { bytesRead } = await file.read(bytes, done, bytes.length - done, done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return bytes.subarray(0, done);
};

const refused = (path: string, reason: string): ImagingError =>
  new ImagingError('OPTION_REFUSED', `Cannot change ${path}: ${reason}`, { details: { path } });

interface Place extends AsyncDisposable {
  folder: FileHandle;
  name: string;
}

/**
 * The folder in which the last part of a path stands, and that part's name. Each step is opened by
 * itself without following links: Node has no openat, the kernel's /proc/self/fd stands for it.
 */
const locate = async (tree: Tree, path: string, follow: boolean): Promise<Place | null> => {
  const folders: FileHandle[] = [];
  const here = (): FileHandle => folders.at(-1) ?? tree.root;
  const closeAll = async (): Promise<void> => {
    for (const folder of folders.splice(0)) await folder.close();
  };
  const pending = path.split('/');
  let links = 0;
  try {
    for (;;) {
      const part = pending.shift() ?? '';
      if (part === '..') await folders.pop()?.close();
      const last = pending.every((rest) => rest === '');
      if (part === '' || part === '.' || part === '..') {
        if (last) return { folder: here(), name: '.', [Symbol.asyncDispose]: closeAll };
        continue;
      }
      const name = tree.ignoreCase ? await writtenAs(here(), part) : part;
      const target = last && !follow ? null : await linkTarget(here(), name);
      if (target !== null) {
        if (++links > MAX_LINKS) break;
        if (target.startsWith('/')) await closeAll();
        pending.unshift(...target.split('/'));
        continue;
      }
      if (last) return { folder: here(), name, [Symbol.asyncDispose]: closeAll };
      folders.push(await open(at(here(), name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    }
  } catch (error) {
    await closeAll();
    if (ABSENT.some((name) => isErrno(error, name))) return null;
    throw error;
  }
  await closeAll();
  return null;
};

const at = (folder: FileHandle, name: string): string => `/proc/self/fd/${folder.fd}/${name}`;

const linkTarget = async (folder: FileHandle, name: string): Promise<string | null> => {
  try {
    return await readlink(at(folder, name));
  } catch (error) {
    if (isErrno(error, 'EINVAL')) return null;
    throw error;
  }
};

const writtenAs = async (folder: FileHandle, name: string): Promise<string> => {
  const wanted = name.toUpperCase();
  const names = await readdir(at(folder, '.'));
  return names.find((one) => one === name) ?? names.find((one) => one.toUpperCase() === wanted) ?? name;
};
