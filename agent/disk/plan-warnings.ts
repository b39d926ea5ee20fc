import type { DiskFacts, ImageDisk, Plan } from '../protocol/index.ts';
import { MBR_SECTORS, MIB, usableRange } from './layout.ts';

/** What whoever deploys should know before it happens; none of it stops a deploy. Pure. */
export const warningsOf = (
  disk: ImageDisk,
  target: DiskFacts,
  plan: Plan,
  options: { grow: boolean; newIdentity?: string },
): string[] => {
  const warnings: string[] = [];
  for (const { name, role, from, to } of plan.moved) {
    warnings.push(`${name} (${role}) moves ${to > from ? 'towards the end of' : 'forward on'} the disk`);
  }
  for (const { name, decryptedFrom } of disk.partitions) {
    if (decryptedFrom === null || !plan.partitions.some((planned) => planned.name === name)) continue;
    warnings.push(
      `${name} was encrypted with BitLocker when it was captured and is not here: turn it on again`,
    );
  }
  const places = [...plan.partitions, ...plan.kept];
  const end = Math.max(0, ...places.map(({ start, size }) => start + size));
  const free = usableRange(disk.table, target).end - end;
  // alignment and the table's own space are no loss worth a word
  if (options.grow && target.size > disk.size && free >= 16 * MIB) {
    warnings.push(`${free} bytes at the end of ${target.name} stay unused: no partition can take them`);
  }
  if (disk.table === 'dos' && target.size > MBR_SECTORS * target.logicalSectorSize) {
    warnings.push('an MBR reaches 2^32 sectors only: the rest of the disk stays unused');
  }
  if (options.newIdentity !== undefined) {
    warnings.push('the disk gets a new identity: what names partitions by PARTUUID will not find them');
  }
  return warnings;
};
