import { DatabaseSync, type SQLInputValue } from 'node:sqlite';
import { SqliteDialect } from 'kysely';
import { ImagingError } from '../../agent/errors.ts';

/**
 * kysely's SQLite dialect on Node's own node:sqlite. `synchronous=FULL`: a state change that was
 * acknowledged is on the disk, also after a power cut (WAL alone would lose the last commits). The file is
 * held exclusively: the queue of open tasks lives in one process's memory.
 *
 * @throws ImagingError CONFIG_INVALID (another server has the file)
 */
export const sqliteDialect = (file: string): SqliteDialect => {
  const database = openExclusively(file);
  /** A full disk makes SQLite roll back by itself; kysely's own rollback would then fail, and hide why (https://www.sqlite.org/lang_transaction.html). */
  const isOver = (sql: string): boolean => sql === 'rollback' && !database.isTransaction;
  return new SqliteDialect({
    database: {
      close: () => database.close(),
      prepare: (sql) => {
        const statement = database.prepare(sql);
        return {
          reader: statement.columns().length > 0,
          all: (parameters) => statement.all(...bindable(parameters)),
          run: (parameters) => (isOver(sql) ? NOTHING : statement.run(...bindable(parameters))),
          iterate: (parameters) => statement.iterate(...bindable(parameters)),
        };
      },
    },
  });
};

const NOTHING = { changes: 0, lastInsertRowid: 0 };

const openExclusively = (file: string): DatabaseSync => {
  const database = new DatabaseSync(file);
  try {
    database.exec(`
      PRAGMA busy_timeout = 5000;
      PRAGMA locking_mode = EXCLUSIVE;
      PRAGMA journal_mode = WAL;
      PRAGMA synchronous = FULL;
      PRAGMA foreign_keys = ON;
      BEGIN EXCLUSIVE;
      COMMIT;
    `);
    return database;
  } catch (error) {
    database.close();
    if (!(error instanceof Error && /database is locked/.test(error.message))) throw error;
    throw new ImagingError('CONFIG_INVALID', `Cannot open ${file}: another server is using it`, {
      cause: error,
    });
  }
};

/** kysely types parameters as unknown; our tables hold text, integers and null only. */
const bindable = (parameters: readonly unknown[]): SQLInputValue[] => parameters as SQLInputValue[];
