import type { Kysely } from 'kysely';

/** Versions that were made smaller from another one. */
export const up = async (db: Kysely<unknown>): Promise<void> => {
  await db.schema.alterTable('versions').addColumn('derived_from', 'integer').execute();
};
