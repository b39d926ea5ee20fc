import { setTimeout as sleep } from 'node:timers/promises';
import { ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';
import type { ByteRange } from '../protocol/index.ts';
import { flushDevice } from './device-io.ts';
import { kernelNameOf, listNames, readAttribute, readNumber, sysfsOf } from './sysfs.ts';

interface Options {
  signal?: AbortSignal;
}

/**
 * A device node for a range of a disk, writable. Debian 13 ships no addpart, and partx needs a table.
 *
 * @throws ImagingError TOOL_FAILED, DISK_WRITE_FAILED (not as asked for)
 */
export const attachLoop = async (
  disk: string,
  { start, size }: ByteRange,
  sectorSize: number,
  options: Options = {},
): Promise<string> => {
  const range = ['--offset', String(start), '--sizelimit', String(size), '--sector-size', String(sectorSize)];
  const node = (await run('losetup', ['--find', '--show', ...range, disk], options)).stdout.trim();
  // a number that was read-only in its former life stays so
  await run('blockdev', ['--setrw', node], options);
  const folder = sysfsOf(kernelNameOf(node));
  const actual = {
    ro: await readAttribute(folder, 'ro'),
    // sysfs counts in units of 512 bytes, whatever the sectors are
    size: ((await readNumber(folder, 'size')) ?? 0) * 512,
    start: await readNumber(folder, 'loop/offset'),
  };
  if (actual.ro === '0' && actual.size === size && actual.start === start) return node;
  throw new ImagingError(
    'DISK_WRITE_FAILED',
    `Cannot make a device at byte ${start} of ${disk}: ${node} differs`,
    {
      details: { node, wanted: { start, size }, actual },
    },
  );
};

/**
 * Take back every loop device on this disk, with all that was written through it.
 *
 * @throws ImagingError DISK_IN_USE: one of them is in use
 */
export const detachLoops = async (disk: string, options: Options = {}): Promise<void> => {
  for (const name of await listNames('/sys/block')) {
    if ((await readAttribute(`/sys/block/${name}`, 'loop/backing_file')) !== disk) continue;
    await flushDevice(`/dev/${name}`, options);
    await detachLoop(`/dev/${name}`, options);
  }
};

/**
 * `losetup --detach` succeeds at once and the kernel detaches when the last opener (a prober) has gone: resolves
 * when it has.
 *
 * @throws ImagingError DISK_IN_USE
 */
export const detachLoop = async (node: string, options: Options = {}): Promise<void> => {
  const folder = sysfsOf(kernelNameOf(node));
  const before = await readAttribute(folder, 'loop/backing_file');
  await run('losetup', ['--detach', node], options);
  for (let tries = 0; tries < 100; tries++) {
    // somebody else may have taken the number at once
    if ((await readAttribute(folder, 'loop/backing_file')) !== before) return;
    await sleep(50, undefined, options);
  }
  throw new ImagingError('DISK_IN_USE', `Cannot detach ${node}: it is in use`, { details: { path: node } });
};
