import { readdir, rmdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { toImagingError } from '../errors.ts';
import type { Log } from '../log.ts';
import { endOrphans } from '../process/orphans.ts';
import { run } from '../process/run.ts';
import { giveBackAbandoned } from './claim.ts';
import { findAbandonedFolders, findLeftovers, type Leftover } from './leftovers.ts';
import { detachLoop } from './loop-nodes.ts';
import { unmount } from './mount.ts';

/**
 * Take down what an agent of this boot left when it was killed in the middle of its work: its tools, mounts,
 * mappings, loop devices, folders, and its right to write to a disk. Only what carries the mark of a process
 * that no longer runs, so that an agent on another console keeps what it works with. What stays is in the log,
 * and named by the claim that it is in the way of (DISK_IN_USE).
 */
export const takeDownLeftovers = async (log: Log): Promise<void> => {
  const doing = async (what: string, work: () => Promise<unknown>): Promise<void> => {
    try {
      await work();
      log.warn(`an agent was killed and left ${what}: taken down`);
    } catch (thrown) {
      const error = toImagingError(thrown);
      log.error({ err: error, details: error.details }, `an agent was killed and left ${what}, which stays`);
    }
  };
  for (const { name, pid } of await endOrphans())
    log.warn(`an agent was killed and left ${name} (${pid}): ended`);
  for (const leftover of await findLeftovers()) {
    await doing(`${leftover.kind} ${leftover.name}`, () => takeDown(leftover));
  }
  for (const folder of await findAbandonedFolders()) await doing(folder, () => removeFolder(folder));
  for (const path of await giveBackAbandoned())
    log.warn(`an agent was killed that had claimed ${path}: read-only again`);
};

const takeDown = async ({ kind, name }: Leftover): Promise<unknown> => {
  switch (kind) {
    case 'mount':
    case 'memory':
      return await unmount(name);
    case 'mapping':
      // a prober of udev may have it open for a moment
      return await run('dmsetup', ['remove', '--retry', name]);
    case 'loop':
      return await detachLoop(name);
  }
};

/** Never into a folder of a folder: should a disk still be mounted there, nothing of it may go. */
const removeFolder = async (folder: string): Promise<void> => {
  if (!/\/(mount|snapshot)-[^/]*$/.test(folder)) {
    for (const name of await readdir(folder)) await unlink(join(folder, name));
  }
  await rmdir(folder);
};
