import { mkdir, rm, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { ImagingError } from '../errors.ts';
import { MARK, type OwnerMark, ownMark } from '../process/owner.ts';
import { run } from '../process/run.ts';
import type { ByteRange } from '../protocol/index.ts';
import { flushDevice } from './device-io.ts';
import { kernelNameOf, listNames, readAttribute, readNumber, sysfsOf } from './sysfs.ts';

interface Options {
  signal?: AbortSignal;
}

export interface LoopOptions {
  writable: boolean;
  /** of what lies behind it; all of it by default */
  range?: ByteRange;
  sectorSize?: number;
}

/**
 * A loop device, and a note of whose it is. Short, and not cancelled in the middle: the device would stay.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const setUpLoop = async (behind: string, options: LoopOptions): Promise<string> => {
  const { range, sectorSize, writable } = options;
  const args = [
    ...(writable ? [] : ['--read-only']),
    ...(range ? ['--offset', String(range.start), '--sizelimit', String(range.size)] : []),
    ...(sectorSize === undefined ? [] : ['--sector-size', String(sectorSize)]),
  ];
  const node = (await run('losetup', ['--find', '--show', ...args, behind])).stdout.trim();
  await noteLoop(node);
  // a number that was read-only in its former life stays so
  if (writable) await run('blockdev', ['--setrw', node]);
  return node;
};

/** Empty files, `loop7:31:1234.56789`: number, the kernel's count of devices that had any number, owner. */
const NOTES = '/run/fog/loops';

/** A loop device that an agent, perhaps this one, set up: it is still what it was then. */
export interface NotedLoop {
  node: string;
  owner: OwnerMark;
}

export const notedLoops = async (): Promise<NotedLoop[]> => {
  const found: NotedLoop[] = [];
  for (const note of await listNames(NOTES)) {
    const [, name, sequence, owner] = new RegExp(`^(loop\\d+):(\\d+):(${MARK})$`).exec(note) ?? [];
    if (name === undefined || owner === undefined) continue;
    const folder = sysfsOf(name);
    const attached = (await readAttribute(folder, 'loop/backing_file')) !== null;
    // the number is another's by now
    if (!attached || (await readAttribute(folder, 'diskseq')) !== sequence) continue;
    found.push({ node: `/dev/${name}`, owner });
  }
  return found;
};

/** Kernels before 5.15 cannot tell one life of a loop device from the next: nothing is noted there. */
const noteLoop = async (node: string): Promise<void> => {
  const sequence = await readAttribute(sysfsOf(kernelNameOf(node)), 'diskseq');
  if (sequence === null) return;
  await mkdir(NOTES, { recursive: true });
  await writeFile(`${NOTES}/${kernelNameOf(node)}:${sequence}:${ownMark()}`, '');
};

const forgetLoop = async (node: string, sequence: string | null): Promise<void> => {
  const prefix = `${kernelNameOf(node)}:${sequence}:`;
  const notes = (await listNames(NOTES)).filter((note) => note.startsWith(prefix));
  for (const note of notes) await rm(`${NOTES}/${note}`, { force: true });
};

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
  options.signal?.throwIfAborted();
  const node = await setUpLoop(disk, { range: { start, size }, sectorSize, writable: true });
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
  const sequence = await readAttribute(folder, 'diskseq');
  await run('losetup', ['--detach', node], options);
  for (let tries = 0; tries < 100; tries++) {
    // somebody else may have taken the number at once
    if ((await readAttribute(folder, 'loop/backing_file')) !== before) {
      return await forgetLoop(node, sequence);
    }
    await sleep(50, undefined, options);
  }
  throw new ImagingError('DISK_IN_USE', `Cannot detach ${node}: it is in use`, { details: { path: node } });
};
