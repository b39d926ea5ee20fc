import { ImagingError } from '../../agent/errors.ts';
import { isWipe, type TaskParams, type TaskResult, type WipeType } from '../../agent/protocol/index.ts';
import { whyNotErased } from '../certificate/verdict.ts';
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
