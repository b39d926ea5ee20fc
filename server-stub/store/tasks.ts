import type { Selectable } from 'kysely';
import {
  type Durable,
  finalStates,
  type Progress,
  type TaskResult,
  type TaskState,
  type TaskType,
} from '../../agent/protocol/index.ts';
import type { TaskRow } from '../queue/task-row.ts';
import type { Database } from './database.ts';
import type { TasksTable } from './tables.ts';

/** What is kept of a task beside the queue's row. */
export interface TaskReports {
  progress: Progress | null;
  durable: Durable | null;
  result: TaskResult | null;
}
export type StoredTask = { row: TaskRow } & TaskReports;

export interface TaskFilter {
  hostId?: string;
  open?: boolean;
  limit?: number;
}

/** Every task that has not ended, oldest first. */
export const openTasks = async (db: Database): Promise<StoredTask[]> => {
  const rows = await db
    .selectFrom('tasks')
    .selectAll()
    .where('state', 'not in', [...finalStates])
    .orderBy('seq')
    .execute();
  return rows.map(fromTable);
};

export const findTask = async (db: Database, id: string): Promise<StoredTask | undefined> => {
  const row = await db.selectFrom('tasks').selectAll().where('id', '=', id).executeTakeFirst();
  return row && fromTable(row);
};

/** Newest first. */
export const listTasks = async (db: Database, filter: TaskFilter): Promise<StoredTask[]> => {
  let query = db
    .selectFrom('tasks')
    .selectAll()
    .orderBy('seq', 'desc')
    .limit(filter.limit ?? 200);
  if (filter.hostId) query = query.where('host_id', '=', filter.hostId);
  if (filter.open) query = query.where('state', 'not in', [...finalStates]);
  return (await query.execute()).map(fromTable);
};

export const lastSeq = async (db: Database): Promise<number> => {
  const row = await db
    .selectFrom('tasks')
    .select((eb) => eb.fn.max('seq').as('seq'))
    .executeTakeFirst();
  return Number(row?.seq ?? 0);
};

/** The end of one task, with what was signed of it. */
export interface TaskEnd {
  id: string;
  result: TaskResult;
  /** of a wipe that reported its disks: the signed text */
  certificate?: string;
}

/** Write these rows, new or changed, in one transaction; `result` ends the one task that it is of. */
export const saveTasks = async (db: Database, rows: readonly TaskRow[], result?: TaskEnd): Promise<void> => {
  await db.transaction().execute(async (trx) => {
    for (const row of rows) {
      const values = toTable(row);
      await trx
        .insertInto('tasks')
        .values({ ...values, progress_json: null, durable_json: null, result_json: null })
        .onConflict((oc) => oc.column('id').doUpdateSet(values))
        .execute();
    }
    if (result) {
      await trx
        .updateTable('tasks')
        .set({ result_json: JSON.stringify(result.result) })
        .where('id', '=', result.id)
        .execute();
    }
    if (result?.certificate !== undefined) {
      const created_at = new Date(rows.find(({ id }) => id === result.id)?.endedAt ?? 0).toISOString();
      await trx
        .insertInto('certificates')
        .values({ task_id: result.id, text: result.certificate, created_at })
        .execute();
    }
  });
};

/** The certificate's text as it was signed. */
export const findCertificate = async (db: Database, taskId: string): Promise<string | undefined> =>
  (await db.selectFrom('certificates').select('text').where('task_id', '=', taskId).executeTakeFirst())?.text;

/** Live state, written from time to time. */
export const saveReports = async (
  db: Database,
  reports: readonly { id: string; progress: Progress | null; durable: Durable | null }[],
): Promise<void> => {
  if (reports.length === 0) return;
  await db.transaction().execute(async (trx) => {
    for (const { id, progress, durable } of reports) {
      await trx
        .updateTable('tasks')
        .set({ progress_json: toJson(progress), durable_json: toJson(durable) })
        .where('id', '=', id)
        .execute();
    }
  });
};

const toTable = (row: TaskRow) => ({
  id: row.id,
  seq: row.seq,
  host_id: row.hostId,
  type: row.type,
  params_json: JSON.stringify(row.params),
  after: row.after,
  state: row.state,
  attempt: row.attempt,
  cancel: row.cancel ? 1 : 0,
  lease_until: row.leaseUntil,
  superseded: row.superseded ? 1 : 0,
  silent_since: row.silentSince,
  waiting_since: row.waitingSince,
  created_at: row.createdAt,
  started_at: row.startedAt,
  ended_at: row.endedAt,
  reason: row.reason,
});

const fromTable = (row: Selectable<TasksTable>): StoredTask => ({
  row: {
    id: row.id,
    seq: row.seq,
    hostId: row.host_id,
    type: row.type as TaskType,
    params: JSON.parse(row.params_json),
    after: row.after as TaskRow['after'],
    state: row.state as TaskState,
    attempt: row.attempt,
    cancel: row.cancel === 1,
    leaseUntil: row.lease_until,
    superseded: row.superseded === 1,
    silentSince: row.silent_since,
    waitingSince: row.waiting_since,
    createdAt: row.created_at,
    startedAt: row.started_at,
    endedAt: row.ended_at,
    reason: row.reason,
  },
  progress: fromJson<Progress>(row.progress_json),
  durable: fromJson<Durable>(row.durable_json),
  result: fromJson<TaskResult>(row.result_json),
});

const toJson = (value: unknown): string | null => (value === null ? null : JSON.stringify(value));
const fromJson = <T>(text: string | null): T | null => (text === null ? null : (JSON.parse(text) as T));
