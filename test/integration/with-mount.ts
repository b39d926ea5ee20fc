import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../agent/process/run.ts';

/** Mounted by this command (`mount -o ro`, `ntfs-3g`), at a folder of its own, while `work` goes on. */
export const withMount = async <T>(
  command: readonly string[],
  device: string,
  work: (root: string) => Promise<T>,
): Promise<T> => {
  const root = await mkdtemp(join(tmpdir(), 'look-'));
  const [tool = '', ...args] = command;
  await run(tool, [...args, device, root]);
  try {
    return await work(root);
  } finally {
    await run('umount', [root]);
    await rm(root, { recursive: true });
  }
};
