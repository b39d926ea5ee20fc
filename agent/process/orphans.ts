import { readdir, readFile, readlink } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { isErrno } from '../errors.ts';
import { isAlive, MARK, OWNER_VARIABLE } from './owner.ts';

export interface Orphan {
  pid: number;
  name: string;
}

const END_MS = 5000;

/**
 * End the tools that an agent was running when it was killed: nobody waits for their answer, and they keep devices
 * busy. Each is known by its environment. Resolves with those that have ended.
 */
export const endOrphans = async (): Promise<Orphan[]> => {
  const orphans = await findOrphans();
  for (const { pid } of orphans) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      if (!isErrno(error, 'ESRCH')) throw error;
    }
  }
  const until = Date.now() + END_MS;
  for (;;) {
    const left = await findOrphans();
    if (left.length === 0 || Date.now() > until) {
      return orphans.filter(({ pid }) => !left.some((one) => one.pid === pid));
    }
    await sleep(50);
  }
};

const ownerVariable = new RegExp(`(?:^|\\0)${OWNER_VARIABLE}=(${MARK})(?:\\0|$)`);

const findOrphans = async (): Promise<Orphan[]> => {
  const found: Orphan[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const environment = await unlessGone(readFile(`/proc/${pid}/environ`, 'latin1'));
    const owner = ownerVariable.exec(environment ?? '')?.[1];
    if (owner === undefined || (await isAlive(owner)) || (await servesFuse(pid))) continue;
    const name = await unlessGone(readFile(`/proc/${pid}/comm`, 'utf8'));
    if (name !== null) found.push({ pid: Number(pid), name: name.trim() });
  }
  return found;
};

/** ntfs-3g is the filesystem of a mount: it ends, with everything written, when that is unmounted. */
const servesFuse = async (pid: string): Promise<boolean> => {
  const folder = `/proc/${pid}/fd`;
  for (const fd of (await unlessGone(readdir(folder))) ?? []) {
    if ((await unlessGone(readlink(`${folder}/${fd}`))) === '/dev/fuse') return true;
  }
  return false;
};

/** Null for a process that has ended meanwhile, and for one that is not ours to look into. */
const unlessGone = async <T>(reading: Promise<T>): Promise<T | null> => {
  try {
    return await reading;
  } catch (error) {
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].some((name) => isErrno(error, name))) return null;
    throw error;
  }
};
