import type { TaskParams, WipedDisk, WipeType } from '../../agent/protocol/index.ts';
import type { TaskRow } from '../queue/task-row.ts';

/** What this server says of a disk: of what its machine reported, only that which the numbers of the report bear out. */
export const verdicts = ['ERASED', 'TABLES REMOVED, DATA LEFT', 'NOT ERASED', 'LEFT ALONE'] as const;
export type Verdict = (typeof verdicts)[number];

/** Pure. `why`: for every verdict but "ERASED", the reason. */
export const verdictOf = (task: TaskRow, disk: WipedDisk): { verdict: Verdict; why: string | null } => {
  if (disk.status === 'skipped') return { verdict: 'LEFT ALONE', why: disk.reason };
  const doubt = whyNotErased(task, disk);
  if (doubt) return { verdict: 'NOT ERASED', why: disk.reason ?? doubt };
  if (disk.status !== 'signatures-removed') return { verdict: 'ERASED', why: null };
  return { verdict: 'TABLES REMOVED, DATA LEFT', why: 'a fast wipe writes to both ends of a disk only' };
};

/** Why a report does not bear out that this disk had what the task asked for; undefined where it does. */
export const whyNotErased = (
  task: TaskRow,
  { facts, status, passes, verification, purge, error }: WipedDisk,
): string | undefined => {
  const params = task.params as TaskParams<WipeType> & { passes?: number };
  const wanted: Record<WipeType, number> = {
    'wipe-fast': 1,
    'wipe-normal': 1,
    'wipe-full': params.passes ?? 1,
  };
  // where overwriting stands in for a purge, the two ends do not
  const isWhole =
    task.type !== 'wipe-fast' || status === 'cleared-verified' || (params.purge && !purge?.method);
  if (error || !['purged-verified', 'cleared-verified', 'signatures-removed'].includes(status))
    return `${facts.name} is ${status}`;
  if (params.purge && !params.orOverwrite && !purge?.method) return `${facts.name} was not purged`;
  if (status === 'purged-verified' && (!purge?.method || purge.check?.survived !== 0))
    return `the purge of ${facts.name} was not seen on the disk`;
  if (status === 'signatures-removed' && isWhole) return `${facts.name} was not overwritten whole`;
  if (passes.length < wanted[task.type as WipeType]) return `${facts.name} had ${passes.length} passes`;
  if (passes.some(({ missed, bytes }) => missed.sectors > 0 || (isWhole && bytes !== facts.size)))
    return `${facts.name} was not overwritten whole`;
  if (!verification || verification.wrong.sectors > 0) return `${facts.name} was not read back`;
  const read =
    isWhole && params.verify === 'full'
      ? facts.size
      : Math.min(facts.size, facts.size / 10, passes.at(-1)?.bytes ?? 0);
  return verification.bytes < read
    ? `of ${facts.name} only ${verification.bytes} bytes were read back`
    : undefined;
};
