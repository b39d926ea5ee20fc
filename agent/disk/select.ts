import { ImagingError } from '../errors.ts';
import type { DiskHint } from '../protocol/index.ts';
import type { Disk } from './disk.ts';

export type Purpose = 'capture' | 'deploy' | 'surface-test' | 'wipe';

/** these read, so that write protection does not matter; a surface test's claim sees to it where it writes */
const reads: readonly Purpose[] = ['capture', 'surface-test'];
/** these treat the disk as hardware, whatever set it belongs to */
const takesRaidMembers: readonly Purpose[] = ['surface-test', 'wipe'];

/**
 * The one disk that a task means, or a refusal. Never a fallback: a hint that matches nothing stays
 * unanswered. USB sticks, cards and storage networks count only when named by serial or WWN; a disk
 * with neither serial nor WWN only when it is the sole one, because nothing could prove later that it
 * is still the same.
 *
 * @throws ImagingError DISK_NOT_FOUND, DISK_AMBIGUOUS; `details` lists the disks and why each was left out
 */
export const selectDisk = (disks: readonly Disk[], hint: DiskHint | undefined, purpose: Purpose): Disk => {
  const candidates: Disk[] = [];
  const leftOut: { disk: Disk; reason: string }[] = [];
  for (const disk of disks) {
    const reason = whyNot(disk, hint, purpose);
    if (reason) leftOut.push({ disk, reason });
    else candidates.push(disk);
  }
  const distinct = onePerDevice(candidates);
  const matching = hint ? distinct.filter((disk) => matches(disk, hint)) : distinct;
  const [chosen] = matching;

  if (!chosen) {
    throw new ImagingError('DISK_NOT_FOUND', `Cannot ${purpose}: ${nothingFound(hint, distinct)}`, {
      details: {
        hint: hint ?? null,
        disks: distinct.map(describe),
        skipped: leftOut.map(({ disk, reason }) => ({ ...describe(disk), reason })),
      },
    });
  }
  if (matching.length > 1 || (!isIdentified(chosen) && distinct.length > 1)) {
    const list = matching.length > 1 ? matching : distinct;
    const why =
      matching.length > 1
        ? `${matching.length} disks could be meant`
        : `${chosen.path} has neither serial number nor WWN and is not the only disk`;
    throw new ImagingError(
      'DISK_AMBIGUOUS',
      `Cannot ${purpose}: ${why}; name one by serial number or WWN (${list.map(inWords).join('; ')})`,
      { details: { hint: hint ?? null, disks: list.map(describe) } },
    );
  }
  return chosen;
};

/**
 * One disk for each hint, in their order: an image of several disks.
 *
 * @throws ImagingError DISK_NOT_FOUND, DISK_AMBIGUOUS (also: two hints mean the same disk)
 */
export const selectDisks = (
  disks: readonly Disk[],
  hints: readonly (DiskHint | undefined)[],
  purpose: Purpose,
): Disk[] => {
  const chosen = hints.map((hint) => selectDisk(disks, hint, purpose));
  for (const [number, disk] of chosen.entries()) {
    const first = chosen.findIndex(({ path }) => path === disk.path);
    if (first === number) continue;
    throw new ImagingError(
      'DISK_AMBIGUOUS',
      `Cannot ${purpose}: d${first + 1} and d${number + 1} are the same disk (${inWords(disk)})`,
      { details: { hints, disk: describe(disk) } },
    );
  }
  return chosen;
};

/** WWN in one spelling: lsblk prints 0x5000…, sysfs naa.5000…, both of the same disk. */
export const normalizeWwn = (wwn: string): string =>
  wwn
    .trim()
    .toLowerCase()
    .replace(/^(0x|naa\.|eui\.|uuid\.)/, '');

const whyNot = (disk: Disk, hint: DiskHint | undefined, purpose: Purpose): string | undefined => {
  if (disk.skipped && !(takesRaidMembers.includes(purpose) && disk.raidMember)) return disk.skipped;
  if (!reads.includes(purpose) && disk.readOnly) return 'read-only hardware';
  const named = hint?.serial !== undefined || hint?.wwn !== undefined;
  if (disk.onlyWhenNamed && !(named && matches(disk, hint))) {
    return `${disk.onlyWhenNamed}: only when named by serial number or WWN`;
  }
  return undefined;
};

const isIdentified = (disk: Disk): boolean => disk.serial !== undefined || disk.wwn !== undefined;

const matches = (disk: Disk, hint: DiskHint): boolean =>
  (hint.serial === undefined || disk.serial?.trim() === hint.serial.trim()) &&
  (hint.wwn === undefined || (disk.wwn !== undefined && normalizeWwn(disk.wwn) === normalizeWwn(hint.wwn))) &&
  (hint.size === undefined || disk.size === hint.size);

/**
 * Two paths to one disk (multipath) show as two devices with one WWN. Some USB bridges give every
 * disk the same WWN, so serial and size must agree as well.
 */
export const onePerDevice = (disks: readonly Disk[]): Disk[] => {
  const seen = new Set<string>();
  return disks.filter((disk) => {
    if (disk.wwn === undefined) return true;
    const key = JSON.stringify([normalizeWwn(disk.wwn), disk.serial ?? '', disk.size]);
    if (seen.has(key)) return false;
    seen.add(key);
    return true;
  });
};

const describe = ({ path, model, serial, wwn, size }: Disk) => ({
  path,
  model: model ?? null,
  serial: serial ?? null,
  wwn: wwn ?? null,
  size,
});

const inWords = (disk: Disk): string =>
  [
    disk.path,
    disk.model,
    disk.serial ? `serial ${disk.serial}` : 'no serial',
    disk.wwn ? `WWN ${disk.wwn}` : undefined,
    `${disk.size} bytes`,
  ]
    .filter(Boolean)
    .join(', ');

const nothingFound = (hint: DiskHint | undefined, candidates: readonly Disk[]): string => {
  if (!hint) return 'this machine has no disk that can be used';
  const wanted = Object.entries(hint).map(([name, value]) => `${name} ${value}`);
  const present = candidates.length > 0 ? candidates.map(inWords).join('; ') : 'none';
  return `no disk with ${wanted.join(' and ')}; present: ${present}`;
};
