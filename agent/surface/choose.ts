import type { Disk } from '../disk/disk.ts';
import { onePerDevice, selectDisks } from '../disk/select.ts';
import { ImagingError } from '../errors.ts';
import type { SurfaceMode } from '../protocol/index.ts';
import { type Choice, notHardware, type WipeTarget } from '../wipe/choose.ts';

/**
 * What a surface test does with every disk that was seen. Pure. Reading harms nothing, so `all-internal` takes whatever is the
 * machine's own, in use or not; a read-write test leaves out what it may not write to. Named disks must be there.
 *
 * @throws ImagingError DISK_NOT_FOUND (a named one is missing, or none is left), DISK_AMBIGUOUS
 */
export const chooseTestDisks = (disks: readonly Disk[], target: WipeTarget, mode: SurfaceMode): Choice[] => {
  const seen = disks.filter(({ skipped }) => !notHardware.has(skipped ?? ''));
  if (target.kind === 'named') {
    const named = selectDisks(disks, target.hints, 'surface-test');
    return seen.map((disk) => ({ disk, skip: named.includes(disk) ? null : 'not named by the task' }));
  }
  const once = onePerDevice(seen);
  const choices = seen.map((disk) => ({ disk, skip: whyNot(disk, once, mode) }));
  if (choices.some(({ skip }) => skip === null)) return choices;
  const list = choices.map(({ disk, skip }) => `${disk.path}: ${skip}`).join('; ');
  throw new ImagingError(
    'DISK_NOT_FOUND',
    `Cannot test: this machine has no internal disk to test (${list || 'it has no disk'})`,
  );
};

const whyNot = (disk: Disk, once: readonly Disk[], mode: SurfaceMode): string | null => {
  if (disk.skipped && !disk.raidMember) return disk.skipped;
  if (disk.onlyWhenNamed) return `${disk.onlyWhenNamed}: only when named by serial number or WWN`;
  if (disk.removable) return 'removable';
  if (!once.includes(disk)) return 'another path to a disk that is tested already';
  if (mode === 'read') return null;
  if (disk.readOnly) return 'read-only hardware';
  return disk.mounts.length > 0 ? `in use: ${disk.mounts.join(', ')}` : null;
};
