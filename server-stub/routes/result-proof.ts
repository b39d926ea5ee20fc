import { ImagingError } from '../../agent/errors.ts';
import {
  isWipe,
  type TaskParams,
  type TaskResult,
  type WipedDisk,
  type WipeType,
} from '../../agent/protocol/index.ts';
import type { TaskRow } from '../queue/task-row.ts';
import type { State } from '../state.ts';
import { whyNotTested } from './surface-proof.ts';

/**
 * What this server can check of a success by itself: a capture has published its version, a wipe says of every disk that it
 * erased how much of it was read back, and that nothing else was found there, a surface test that it went over all of every disk.
 * (That a success carries evidence at all is in the schema.)
 *
 * @throws ImagingError BAD_REQUEST
 */
export const requireProof = async (state: State, task: TaskRow, result: TaskResult): Promise<void> => {
  if (result.outcome !== 'succeeded') return;
  if (isWipe(task.type)) requireErased(task, result);
  if (task.type === 'surface-test') refuseFor(task, whyNotTested(task, result));
  if (task.type === 'capture') await requirePublished(state, task);
};

const requirePublished = async (state: State, task: TaskRow): Promise<void> => {
  const upload = await state.db
    .selectFrom('uploads')
    .select('state')
    .where('task_id', '=', task.id)
    .executeTakeFirst();
  if (upload?.state !== 'published') {
    throw new ImagingError(
      'BAD_REQUEST',
      `Cannot accept success of task ${task.id}: it has not published a version`,
    );
  }
};

const requireErased = (task: TaskRow, result: TaskResult): void => {
  const params = task.params as TaskParams<WipeType>;
  if (params.dryRun) return;
  const erased = result.wipe?.disks.filter(({ status }) => status !== 'skipped') ?? [];
  const named = [...(params.disks ?? []), ...(params.disk ? [params.disk] : [])];
  const absent = named.find(
    ({ serial }) => serial !== undefined && !erased.some(({ facts }) => facts.serial === serial.trim()),
  );
  const doubt =
    erased.length === 0
      ? 'it names no disk that was erased'
      : absent
        ? `it does not name ${absent.serial}`
        : erased.map((disk) => whyNotErased(task, disk)).find(Boolean);
  refuseFor(task, doubt);
};

const refuseFor = (task: TaskRow, doubt: string | undefined): void => {
  if (!doubt) return;
  throw new ImagingError('BAD_REQUEST', `Cannot accept success of task ${task.id}: ${doubt}`);
};

const whyNotErased = (
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
  const isWhole = task.type !== 'wipe-fast' || (params.purge && !purge?.method);
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
