import { randomUUID } from 'node:crypto';
import type { Database } from './database.ts';

export interface Upload {
  id: string;
  taskId: string;
  image: string;
  version: number;
  state: 'open' | 'published' | 'abandoned';
}

export const addUpload = async (
  db: Database,
  upload: { taskId: string; image: string; version: number },
  at: Date,
): Promise<Upload> => {
  const id = randomUUID();
  await db
    .insertInto('uploads')
    .values({
      id,
      task_id: upload.taskId,
      image: upload.image,
      version: upload.version,
      state: 'open',
      created_at: at.toISOString(),
    })
    .execute();
  return { id, ...upload, state: 'open' };
};

export const findUpload = async (
  db: Database,
  by: { id: string } | { taskId: string },
): Promise<Upload | undefined> => {
  const query = db.selectFrom('uploads').selectAll();
  const row = await ('id' in by
    ? query.where('id', '=', by.id)
    : query.where('task_id', '=', by.taskId)
  ).executeTakeFirst();
  return (
    row && {
      id: row.id,
      taskId: row.task_id,
      image: row.image,
      version: row.version,
      state: row.state as Upload['state'],
    }
  );
};

/** Open uploads of what is no task: their `taskId` begins so. */
export const openUploadsOf = async (db: Database, prefix: string): Promise<{ taskId: string }[]> => {
  const rows = await db
    .selectFrom('uploads')
    .select('task_id')
    .where('state', '=', 'open')
    .where('task_id', 'like', `${prefix}%`)
    .execute();
  return rows.map(({ task_id }) => ({ taskId: task_id }));
};

/** An upload that has ended needs its pins no more. */
export const endUpload = async (
  db: Database,
  id: string,
  state: 'published' | 'abandoned',
): Promise<void> => {
  await db.transaction().execute(async (trx) => {
    await trx.updateTable('uploads').set({ state }).where('id', '=', id).execute();
    await trx.deleteFrom('upload_pins').where('upload_id', '=', id).execute();
  });
};
