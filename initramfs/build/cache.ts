import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno } from '../../agent/errors.ts';

export type Log = (line: string) => void;

export interface CacheOptions {
  /** the cache's folder */
  root: string;
  log: Log;
  /** make every layer anew */
  fresh?: boolean;
}

export interface Layer {
  folder: string;
  /** SHA-256 of everything that went in */
  key: string;
}

/** older results of the same layer that stay, for going back and forth between two branches */
const KEPT = 2;

/**
 * A folder that `make` fills, or the one that the same inputs filled before. It appears under its name only
 * when it is whole, so a killed build leaves nothing that a later one would trust.
 */
export const layer = async (
  options: CacheOptions,
  name: string,
  inputs: readonly string[],
  make: (folder: string) => Promise<void>,
): Promise<Layer> => {
  const key = hashOf([name, ...inputs]);
  const folder = join(options.root, `${name}-${key.slice(0, 16)}`);
  if (!options.fresh && (await exists(folder))) {
    // as new: another build, which drops the oldest, may run at this moment
    await utimes(folder, new Date(), new Date());
    options.log(`${name}: unchanged`);
    return { folder, key };
  }
  const started = performance.now();
  options.log(`${name}: building`);
  const making = join(options.root, `.making-${name}-${randomBytes(6).toString('hex')}`);
  await mkdir(making, { recursive: true });
  try {
    await make(making);
    await publish(making, folder, options.fresh ?? false);
  } finally {
    await rm(making, { recursive: true, force: true });
  }
  await dropOld(options.root, name);
  options.log(`${name}: built in ${((performance.now() - started) / 1000).toFixed(1)} s`);
  return { folder, key };
};

/** SHA-256 in hex over texts, with their lengths, so that no two lists collide. */
export const hashOf = (texts: readonly string[]): string => {
  const hash = createHash('sha256');
  for (const text of texts) hash.update(`${Buffer.byteLength(text)}\n`).update(text);
  return hash.digest('hex');
};

/** SHA-256 of a file in hex. */
export const hashFile = async (path: string): Promise<string> => {
  const hash = createHash('sha256');
  for await (const part of createReadStream(path, { highWaterMark: 1024 * 1024 })) hash.update(part);
  return hash.digest('hex');
};

export const exists = async (path: string): Promise<boolean> => {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false;
    throw error;
  }
};

const publish = async (making: string, folder: string, fresh: boolean): Promise<void> => {
  try {
    await rename(making, folder);
  } catch (error) {
    if (!isErrno(error, 'ENOTEMPTY') && !isErrno(error, 'EEXIST')) throw error;
    // another build with the same inputs was quicker, and perhaps somebody reads what it made
    if (!fresh) return;
    const old = `${making}-old`;
    await rename(folder, old);
    await rename(making, folder);
    await rm(old, { recursive: true, force: true });
  }
};

const dropOld = async (root: string, name: string): Promise<void> => {
  const own = new RegExp(`^${name}-[0-9a-f]{16}$`);
  const folders = await Promise.all(
    (await readdir(root))
      .filter((entry) => own.test(entry))
      .map(async (entry) => ({ path: join(root, entry), time: (await stat(join(root, entry))).mtimeMs })),
  );
  folders.sort((a, b) => b.time - a.time);
  for (const { path } of folders.slice(1 + KEPT)) await rm(path, { recursive: true, force: true });
};
