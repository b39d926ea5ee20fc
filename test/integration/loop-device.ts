import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { type Disk, listDisks } from '../../agent/disk/disk.ts';
import { run } from '../../agent/process/run.ts';
import type { Volume } from '../../agent/volumes/volume.ts';

export const MIB = 1024 * 1024;

export interface LoopDevice {
  path: string;
  /** the file behind it */
  file: string;
}

/** A disk in a sparse file, gone again when the test ends. */
export const attachLoop = async (
  t: ExecutionContext,
  bytes: number,
  { sectorSize = 512 }: { sectorSize?: number } = {},
): Promise<LoopDevice> => {
  const folder = await mkdtemp(join(tmpdir(), 'loop-'));
  const file = join(folder, 'disk.img');
  await using handle = await open(file, 'w');
  await handle.truncate(bytes);
  const { stdout } = await run('losetup', ['--find', '--show', '--sector-size', String(sectorSize), file]);
  const path = stdout.trim();
  t.teardown(async () => {
    // a flag or a partition left behind would meet the next user of this number
    await run('blockdev', ['--setrw', path]);
    await run('partx', ['--delete', path], { okExitCodes: [0, 1] });
    await run('losetup', ['--detach', path]);
    await rm(folder, { recursive: true, force: true });
  });
  await run('blockdev', ['--setrw', path]);
  return { path, file };
};

/** The loop device as the agent would list it. */
export const diskOf = async (path: string): Promise<Disk> => {
  const disk = (await listDisks({ includeLoop: true })).find((one) => one.path === path);
  if (!disk) throw new Error(`no disk ${path}`);
  return disk;
};

/** The loop device as a partition that a capture looks into. */
export const partitionOn = (device: string, size: number, name = 'p1'): Volume => ({
  ...{ device, size, name },
  partition: true,
});

/** SHA-256 of everything that a device or file holds. */
export const hashOf = async (path: string): Promise<string> => {
  const hash = createHash('sha256');
  for await (const block of createReadStream(path, { highWaterMark: MIB })) hash.update(block);
  return hash.digest('hex');
};
