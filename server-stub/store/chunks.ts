import type { Database } from './database.ts';

/** Parameters of one statement: SQLite takes 32,766, PostgreSQL 65,535. */
const BATCH = 5000;

/** Those of `ids` that are stored and not known to be damaged, with the size of their files. */
export const soundChunks = async (db: Database, ids: readonly string[]): Promise<Map<string, number>> => {
  const found = new Map<string, number>();
  for (const part of batches(ids)) {
    const rows = await db
      .selectFrom('chunks')
      .select(['id', 'size'])
      .where('id', 'in', part)
      .where('damaged', '=', 0)
      .execute();
    for (const { id, size } of rows) found.set(id, size);
  }
  return found;
};

export const damagedChunks = async (db: Database, ids: readonly string[]): Promise<Set<string>> => {
  const found = new Set<string>();
  for (const part of batches(ids)) {
    const rows = await db
      .selectFrom('chunks')
      .select('id')
      .where('id', 'in', part)
      .where('damaged', '=', 1)
      .execute();
    for (const { id } of rows) found.add(id);
  }
  return found;
};

/** These lie in the store, checked and durable. */
export const recordChunks = async (
  db: Database,
  chunks: readonly { id: string; size: number }[],
): Promise<void> => {
  for (const part of batches(chunks)) {
    await db
      .insertInto('chunks')
      .values(part.map(({ id, size }) => ({ id, size, damaged: 0 })))
      .onConflict((oc) =>
        oc.column('id').doUpdateSet((eb) => ({ size: eb.ref('excluded.size'), damaged: 0 })),
      )
      .execute();
  }
};

/** `missing` answers from now on that they are missing, so that the next capture brings them anew. */
export const markDamaged = async (db: Database, ids: readonly string[]): Promise<void> => {
  for (const part of batches(ids)) {
    await db.updateTable('chunks').set({ damaged: 1 }).where('id', 'in', part).execute();
  }
};

export const forgetChunks = async (db: Database, ids: readonly string[]): Promise<void> => {
  for (const part of batches(ids)) await db.deleteFrom('chunks').where('id', 'in', part).execute();
};

/** A pinned chunk is not swept as long as its upload is open. */
export const pinChunks = async (db: Database, uploadId: string, ids: readonly string[]): Promise<void> => {
  for (const part of batches(ids)) {
    await db
      .insertInto('upload_pins')
      .values(part.map((id) => ({ upload_id: uploadId, chunk_id: id })))
      .onConflict((oc) => oc.doNothing())
      .execute();
  }
};

const batches = <T>(all: readonly T[]): T[][] =>
  Array.from({ length: Math.ceil(all.length / BATCH) }, (_, part) =>
    all.slice(part * BATCH, (part + 1) * BATCH),
  );
