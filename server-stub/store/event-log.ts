import type { ServerEvent } from '../events.ts';
import type { Database } from './database.ts';

/**
 * State changes for people to look back on; progress is not among them. Written in one go from time to time:
 * what must not be lost stands in the rows of tasks, hosts and versions.
 */
export const createEventLog = (db: Database) => {
  let pending: { at: string; kind: string; subject: string; data_json: string }[] = [];
  return {
    add: (event: ServerEvent, at: Date): void => {
      const { kind, subject, data } = event;
      pending.push({ at: at.toISOString(), kind, subject, data_json: JSON.stringify(data) });
    },
    flush: async (): Promise<void> => {
      if (pending.length === 0) return;
      const rows = pending;
      pending = [];
      await db.transaction().execute(async (trx) => {
        for (const row of rows) await trx.insertInto('events').values(row).execute();
      });
    },
  };
};

export const recentEvents = async (db: Database, limit: number) => {
  const rows = await db.selectFrom('events').selectAll().orderBy('id', 'desc').limit(limit).execute();
  return rows.map(({ id, at, kind, subject, data_json }) => ({
    id,
    at,
    kind,
    subject,
    data: JSON.parse(data_json) as Record<string, unknown>,
  }));
};
