import type { Database } from './database.ts';

/**
 * Keep these lines; `from` is the number of the first. Lines that are there already stay as they are, so
 * that an upload may be repeated. Beyond `limit` lines an attempt's log is cut: a tool that floods its
 * log must not fill the disk.
 */
export const appendLog = async (
  db: Database,
  taskId: string,
  attempt: number,
  from: number,
  lines: readonly string[],
  limit: number,
): Promise<void> => {
  const rows = lines
    .map((line, index) => ({ task_id: taskId, attempt, number: from + index, line }))
    .filter((row) => row.number < limit);
  if (rows.length === 0) return;
  await db
    .insertInto('task_logs')
    .values(rows)
    .onConflict((oc) => oc.doNothing())
    .execute();
};

/** Lines in order, all attempts or one. */
export const readLog = async (
  db: Database,
  taskId: string,
  options: { attempt?: number | undefined; after?: number | undefined; limit: number },
): Promise<{ attempt: number; number: number; line: string }[]> => {
  let query = db
    .selectFrom('task_logs')
    .select(['attempt', 'number', 'line'])
    .where('task_id', '=', taskId)
    .orderBy('attempt')
    .orderBy('number')
    .limit(options.limit);
  if (options.attempt !== undefined) query = query.where('attempt', '=', options.attempt);
  if (options.after !== undefined) query = query.where('number', '>', options.after);
  return query.execute();
};
