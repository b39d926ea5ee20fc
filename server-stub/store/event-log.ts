import type { ServerEvent } from '../events.ts';
import type { Database } from './database.ts';

/** Keep a state change; progress is not kept here. */
export const recordEvent = async (db: Database, event: ServerEvent, at: Date): Promise<void> => {
  await db
    .insertInto('events')
    .values({
      at: at.toISOString(),
      kind: event.kind,
      subject: event.subject,
      data_json: JSON.stringify(event.data),
    })
    .execute();
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
