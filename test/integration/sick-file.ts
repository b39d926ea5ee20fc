import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { run } from '../../agent/process/run.ts';

export interface SickFile {
  /** what fails */
  file: string;
  /** what is behind it */
  under: string;
}

/**
 * A file whose sectors fail to be read or written: QEMU's blkdebug behind FUSE. No loop device on it: those call a short write done.
 */
export const sickFile = async (
  t: ExecutionContext,
  bytes: number,
  sectors: readonly number[] | 'all',
  iotype: 'read' | 'write',
): Promise<SickFile> => {
  const folder = await mkdtemp(join(tmpdir(), 'sick-'));
  const [under, file] = [join(folder, 'under'), join(folder, 'disk')];
  await run('truncate', ['-s', String(bytes), under, file]);
  const node = {
    driver: 'blkdebug',
    'node-name': 'sick',
    image: { driver: 'file', filename: under },
    'inject-error': (sectors === 'all' ? [{}] : sectors.map((sector) => ({ sector }))).map((where) => ({
      ...{ event: 'none', iotype, errno: 5 },
      ...where,
    })),
  };
  const fuse = `type=fuse,id=fuse,node-name=sick,mountpoint=${file},writable=on`;
  const stopping = new AbortController();
  const { promise: ready, resolve } = Promise.withResolvers<void>();
  const daemon = run(
    'qemu-storage-daemon',
    [
      ...['--blockdev', JSON.stringify(node), '--export', fuse],
      ...['--chardev', 'stdio,id=out', '--monitor', 'chardev=out'],
    ],
    {
      ...{ signal: stopping.signal, timeoutMs: 0 },
      onLine: (line) => (line.includes('QMP') ? resolve() : undefined),
    },
  ).catch((error: unknown) => error);
  t.teardown(async () => {
    stopping.abort();
    await daemon;
    await rm(folder, { recursive: true, force: true });
  });
  await Promise.race([ready, daemon.then((error) => Promise.reject(error))]);
  return { file, under };
};
