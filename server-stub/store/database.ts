import { Kysely } from 'kysely';
import { type Migration, Migrator } from 'kysely/migration';
import * as first from './migrations/001-first.ts';
import * as derivedVersions from './migrations/002-derived-versions.ts';
import * as certificates from './migrations/003-certificates.ts';
import { sqliteDialect } from './sqlite.ts';
import type { Tables } from './tables.ts';

export type Database = Kysely<Tables>;

/** Imported by name, so that a bundle holds them; the keys' alphabetical order is the order of execution. */
const migrations: Record<string, Migration> = {
  '001-first': first,
  '002-derived-versions': derivedVersions,
  '003-certificates': certificates,
};

/**
 * Open the database file (`:memory:` for tests) and bring it to the newest schema.
 * @throws the migration's own error: a database that cannot be migrated must not be served
 */
export const openDatabase = async (file: string): Promise<Database> => {
  const db = new Kysely<Tables>({ dialect: sqliteDialect(file) });
  const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } });
  const { error } = await migrator.migrateToLatest();
  if (error) {
    await db.destroy();
    throw new Error(`Cannot migrate the database ${file}: ${String(error)}`, { cause: error });
  }
  return db;
};
