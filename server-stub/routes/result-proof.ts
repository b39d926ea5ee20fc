import { ImagingError } from '../../agent/errors.ts';
import type { TaskResult } from '../../agent/protocol/index.ts';
import type { TaskRow } from '../queue/task-row.ts';
import type { State } from '../state.ts';

/**
 * What this server can check of a success by itself: a capture has published its version.
 * (That a success carries evidence at all is in the schema.)
 *
 * @throws ImagingError BAD_REQUEST
 */
export const requireProof = async (state: State, task: TaskRow, result: TaskResult): Promise<void> => {
  if (result.outcome !== 'succeeded' || task.type !== 'capture') return;
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
