import { mkdtempSync, rmdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { run } from '../process/run.ts';

/**
 * The one step of shrinking that needs root: mount the btrfs in FILE, resize it to SIZE bytes, unmount it.
 * `node shrink-btrfs-mounted.ts FILE SIZE`, started in a mount namespace of its own (unshare --mount).
 * Ends with 0 when the filesystem has that size and is unmounted, else with 1 and a reason.
 */
const TOOL_MS = 12 * 60 * 60_000;

const main = async ([file, size]: readonly string[]): Promise<void> => {
  if (file === undefined || !statSync(file).isFile()) throw new Error('Cannot resize: not a regular file');
  if (size === undefined || !/^[1-9]\d{0,15}$/.test(size))
    throw new Error('Cannot resize: not a size in bytes');
  const folder = mkdtempSync(join(dirname(file), 'mount-'));
  try {
    // what a captured disk holds is not to be executed or trusted here
    await run('mount', ['-t', 'btrfs', '-o', 'loop,nosuid,nodev,noexec,noatime', file, folder]);
    try {
      await resize(folder, size);
    } finally {
      await run('umount', [folder], { timeoutMs: TOOL_MS });
    }
  } finally {
    rmdirSync(folder);
  }
};

/** Chunks that are allocated and half empty stand in the way: where the first try fails they are put together. */
const resize = async (folder: string, size: string): Promise<void> => {
  const once = () => run('btrfs', ['filesystem', 'resize', size, folder], { timeoutMs: TOOL_MS });
  try {
    await once();
  } catch {
    await run('btrfs', ['balance', 'start', '-dusage=90', '-musage=90', folder], {
      timeoutMs: TOOL_MS,
      // a balance that finds no room has done what it could
      okExitCodes: [0, 1],
    });
    await once();
  }
};

try {
  await main(process.argv.slice(2));
} catch (error) {
  const details = error instanceof Error && 'details' in error ? JSON.stringify(error.details) : '';
  console.error(details);
  console.error(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
