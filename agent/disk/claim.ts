import { constants } from 'node:fs';
import { mkdir, open, readFile, rm, writeFile } from 'node:fs/promises';
import { hasCode, ImagingError, isErrno } from '../errors.ts';
import { isAlive, MARK, ownMark } from '../process/owner.ts';
import { run } from '../process/run.ts';
import { flushDevice } from './device-io.ts';
import { type Disk, type ListDisksOptions, listDisks } from './disk.ts';
import { findLeftovers } from './leftovers.ts';
import { lockDisk } from './lock.ts';
import { detachLoops } from './loop-nodes.ts';
import { normalizeWwn } from './select.ts';
import { kernelNameOf, listNames, readAttribute, sysfsOf } from './sysfs.ts';

declare const claimed: unique symbol;

/** The right to write to one disk. Only claimDisk makes one. `await using` releases it. */
export interface DiskClaim extends AsyncDisposable {
  readonly [claimed]: true;
  readonly disk: Disk;
  readonly path: string;
  /** read-only again, proved; may be called twice */
  release(): Promise<void>;
}

export interface ClaimOptions {
  /** what is there now; a test's own list */
  list?: (options: ListDisksOptions) => Promise<Disk[]>;
  /** also a member of a RAID set, which nothing of ours assembles: only to erase it */
  raidMember?: boolean;
  signal?: AbortSignal;
}

const live = new WeakSet<DiskClaim>();

/**
 * Take a disk for writing: read its identity again, see that nobody uses it, lock it, lift its
 * read-only flag and see that it is lifted. Nothing is written.
 *
 * @throws ImagingError DISK_CHANGED (not the disk that was chosen), DISK_IN_USE (mounted, swap, held,
 *   locked), DISK_WRITE_FAILED (write-protected hardware)
 */
export const claimDisk = async (disk: Disk, options: ClaimOptions = {}): Promise<DiskClaim> => {
  const { list = listDisks, signal } = options;
  if (disk.skipped && !(options.raidMember && disk.raidMember)) {
    throw new ImagingError('DISK_NOT_FOUND', `Cannot claim ${disk.path}: ${disk.skipped}`);
  }
  await settle(signal);
  const present = await list({ includeLoop: true, ...(signal ? { signal } : {}) });
  const now = present.find(({ path }) => path === disk.path);
  assertSame(disk, now);
  await assertUnused(now);
  const lock = await lockDisk(now.path);
  const giveBack = async (): Promise<void> => {
    try {
      await rm(noteOf(now.path), { force: true });
      await setFlag(now.path, 'ro');
    } finally {
      await lock.unlock();
    }
  };
  try {
    await note(now);
    await setFlag(now.path, 'rw');
  } catch (error) {
    await giveBack();
    throw error;
  }

  let released: Promise<void> | undefined;
  const release = async (): Promise<void> => {
    live.delete(claim);
    try {
      // a task that failed half-way leaves its partition devices behind
      await detachLoops(now.path);
      await flushDevice(now.path);
    } finally {
      await giveBack();
    }
  };
  const claim = {
    disk: now,
    path: now.path,
    release: () => (released ??= release()),
    [Symbol.asyncDispose]: () => (released ??= release()),
  } as unknown as DiskClaim;
  live.add(claim);
  return claim;
};

/**
 * The guard in front of every destructive function: types can be cast, this cannot.
 *
 * @throws ImagingError INTERNAL: not a claim, or released
 */
export const assertClaim = (claim: DiskClaim): void => {
  if (!live.has(claim)) throw new ImagingError('INTERNAL', 'Cannot write: the disk is not claimed');
};

/** udev's own probing and the read-only rule come first; a system without udev has nothing to wait for. */
const settle = async (signal: AbortSignal | undefined): Promise<void> => {
  try {
    await run('udevadm', ['settle', '--timeout=30'], signal ? { signal } : {});
  } catch (error) {
    if (!hasCode(error, 'TOOL_MISSING') && !hasCode(error, 'TOOL_FAILED')) throw error;
  }
};

function assertSame(chosen: Disk, now: Disk | undefined): asserts now is Disk {
  const differences: string[] = [];
  if (!now) differences.push('it is gone');
  else {
    if (now.size !== chosen.size) differences.push(`size was ${chosen.size}, is ${now.size}`);
    if (now.serial !== chosen.serial) {
      differences.push(`serial was ${chosen.serial ?? 'none'}, is ${now.serial ?? 'none'}`);
    }
    if (normalizeWwn(now.wwn ?? '') !== normalizeWwn(chosen.wwn ?? '')) {
      differences.push(`WWN was ${chosen.wwn ?? 'none'}, is ${now.wwn ?? 'none'}`);
    }
    if (now.logicalSectorSize !== chosen.logicalSectorSize) {
      differences.push(`sector size was ${chosen.logicalSectorSize}, is ${now.logicalSectorSize}`);
    }
    if (now.sequence !== chosen.sequence) differences.push('it was unplugged and came back');
  }
  if (differences.length === 0) return;
  throw new ImagingError('DISK_CHANGED', `Cannot claim ${chosen.path}: ${differences.join(', ')}`, {
    details: { path: chosen.path, differences },
  });
}

const assertUnused = async (disk: Disk): Promise<void> => {
  const name = kernelNameOf(disk.path);
  const users = disk.mounts.map((mount) => (mount === '[SWAP]' ? 'swap' : `mounted on ${mount}`));
  for (const node of [name, ...disk.partitions.map(({ path }) => kernelNameOf(path))]) {
    const holders = await listNames(`${sysfsOf(node)}/holders`);
    users.push(...holders.map((holder) => `${node} held by ${holder}`));
  }
  const swaps = (await readFile('/proc/swaps', 'utf8')).split('\n').map((line) => line.split(/\s/)[0]);
  for (const path of [disk.path, ...disk.partitions.map((partition) => partition.path)]) {
    if (swaps.includes(path) && !users.includes('swap')) users.push('swap');
  }
  // mounts of other namespaces, device-mapper, RAID: the kernel itself knows best
  if (users.length === 0 && !(await opensAlone(disk.path))) users.push('held by the kernel');
  if (users.length === 0) return;
  const left = (await findLeftovers()).map(({ name }) => name);
  const why = left.length > 0 ? `; an agent that was killed left ${left.join(', ')}` : '';
  throw new ImagingError('DISK_IN_USE', `Cannot claim ${disk.path}: ${users.join(', ')}${why}`, {
    details: { path: disk.path, users, left },
  });
};

/** O_EXCL on a block device fails while it or a partition of it is mounted or held (open(2)). */
const opensAlone = async (path: string): Promise<boolean> => {
  try {
    await using _file = await open(path, constants.O_RDONLY | constants.O_EXCL);
    return true;
  } catch (error) {
    if (isErrno(error, 'EBUSY')) return false;
    throw error;
  }
};

/** The udev rule of the initramfs leaves partitions alone that appear on a disk marked here. */
const CLAIMS = '/run/fog/claims';

/**
 * Disks that an agent had claimed when it was killed are read-only again: nobody has a right to write to them.
 * Resolves with their names.
 */
export const giveBackAbandoned = async (): Promise<string[]> => {
  const given: string[] = [];
  for (const name of await listNames(CLAIMS)) {
    const noted = (await readAttribute(CLAIMS, name)) ?? '';
    const [, owner, sequence] = new RegExp(`^(${MARK}) (\\d+|none)$`).exec(noted) ?? [];
    // no mark: a person's, who wants the disk writable
    if (owner === undefined || (await isAlive(owner))) continue;
    const path = `/dev/${name.replaceAll('!', '/')}`;
    await rm(noteOf(path), { force: true });
    // unplugged since, and another one came
    if (((await readAttribute(sysfsOf(name), 'diskseq')) ?? 'none') !== sequence) continue;
    await flushDevice(path);
    await setFlag(path, 'ro');
    given.push(path);
  }
  return given;
};

const noteOf = (path: string): string => `${CLAIMS}/${kernelNameOf(path).replaceAll('/', '!')}`;

const note = async ({ path, sequence }: Disk): Promise<void> => {
  await mkdir(CLAIMS, { recursive: true });
  await writeFile(noteOf(path), `${ownMark()} ${sequence ?? 'none'}\n`);
};

/** Set disk and partitions writable or read-only, and see in sysfs that they are. */
const setFlag = async (path: string, flag: 'rw' | 'ro'): Promise<void> => {
  const name = kernelNameOf(path);
  const partitions = (await listNames(sysfsOf(name))).filter((entry) =>
    entry.startsWith(name.replaceAll('/', '!')),
  );
  for (const node of [name, ...partitions.map((entry) => entry.replaceAll('!', '/'))]) {
    await run('blockdev', [`--set${flag}`, `/dev/${node}`]);
    const actual = await readAttribute(sysfsOf(node), 'ro');
    if (actual === (flag === 'ro' ? '1' : '0')) continue;
    throw new ImagingError(
      'DISK_WRITE_FAILED',
      flag === 'rw'
        ? `Cannot write to /dev/${node}: it is write-protected`
        : `Cannot set /dev/${node} read-only: the kernel keeps it writable`,
      { details: { path: `/dev/${node}` } },
    );
  }
};
