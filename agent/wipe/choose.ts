import type { Disk } from '../disk/disk.ts';
import { onePerDevice, selectDisks } from '../disk/select.ts';
import { ImagingError } from '../errors.ts';
import type { DiskHint } from '../protocol/index.ts';

/** Disks by name, or every disk that is this machine's own. */
export type WipeTarget = { kind: 'named'; hints: readonly DiskHint[] } | { kind: 'all-internal' };

/** A disk of the machine, and why it is left alone; null where it is to be wiped. */
export interface Choice {
  disk: Disk;
  skip: string | null;
}

/**
 * What a wipe does with every disk that was seen. Pure. A named disk must be there and be the only one of that name; `all-internal`
 * leaves out what somebody could pull out, what other machines may use as well, and what this machine runs from.
 *
 * @throws ImagingError DISK_NOT_FOUND (a named one is missing, or none is left), DISK_AMBIGUOUS
 */
export const chooseDisks = (disks: readonly Disk[], target: WipeTarget): Choice[] => {
  const seen = disks.filter(({ skipped }) => !notHardware.has(skipped ?? ''));
  if (target.kind === 'named') {
    const named = selectDisks(disks, target.hints, 'wipe');
    return seen.map((disk) => ({ disk, skip: named.includes(disk) ? null : 'not named by the task' }));
  }
  const choices = seen.map((disk) => ({ disk, skip: whyNotInternal(disk, seen) }));
  if (choices.some(({ skip }) => skip === null)) return choices;
  const list = choices.map(({ disk, skip }) => ({
    path: disk.path,
    serial: disk.serial ?? null,
    reason: skip,
  }));
  throw new ImagingError(
    'DISK_NOT_FOUND',
    `Cannot wipe: this machine has no internal disk that may be wiped (${list.map(({ path, reason }) => `${path}: ${reason}`).join('; ') || 'it has no disk'})`,
    { details: { disks: list } },
  );
};

/** what the agent's own system is made of; nobody counts these as disks of the machine */
export const notHardware: ReadonlySet<string> = new Set(['loop device', 'memory', 'compressed memory']);

const whyNotInternal = (disk: Disk, all: readonly Disk[]): string | null => {
  if (disk.skipped && !disk.raidMember) return disk.skipped;
  if (disk.readOnly) return 'read-only hardware';
  if (disk.onlyWhenNamed) return `${disk.onlyWhenNamed}: only when named by serial number or WWN`;
  if (disk.removable) return 'removable';
  if (disk.mounts.length > 0) return `in use: ${disk.mounts.join(', ')}`;
  const shared = [disk.content ?? '', ...disk.partitions.map(({ filesystem }) => filesystem)];
  if (shared.some((filesystem) => /^vmfs/i.test(filesystem))) {
    return 'shared: holds a VMFS datastore, which other machines may use';
  }
  const twins = all.filter((other) => other !== disk && onePerDevice([disk, other]).length === 1);
  if (twins.length > 0) return `shared: another path to it is ${twins.map(({ path }) => path).join(', ')}`;
  return null;
};
