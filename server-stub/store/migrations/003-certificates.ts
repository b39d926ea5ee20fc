import type { Kysely } from 'kysely';

/** Certificates of erasure: they outlive their host. */
export const up = async (db: Kysely<unknown>): Promise<void> => {
  await db.schema
    .createTable('certificates')
    .addColumn('task_id', 'text', (c) => c.primaryKey())
    .addColumn('text', 'text', (c) => c.notNull())
    .addColumn('created_at', 'text', (c) => c.notNull())
    .execute();
};
