import type { Database } from './database.ts';

export interface VersionRow {
  image: string;
  version: number;
  createdAt: string;
  diskBytes: number;
  usedBytes: number;
  chunks: number;
  manifestSha256: string;
  hurt: string[];
  /** the captured version that this one was made smaller from */
  derivedFrom: number | null;
}

export const listImages = async (
  db: Database,
): Promise<{ name: string; createdAt: string; versions: VersionRow[] }[]> => {
  const images = await db.selectFrom('images').selectAll().orderBy('name').execute();
  const rows = await db.selectFrom('versions').selectAll().orderBy('version', 'desc').execute();
  const versions = Map.groupBy(rows.map(fromTable), ({ image }) => image);
  return images.map(({ name, created_at }) => ({
    name,
    createdAt: created_at,
    versions: versions.get(name) ?? [],
  }));
};

/** The version that deploys get by default: the newest that was captured, never a derived one. */
export const newestVersion = async (db: Database, image: string): Promise<number | undefined> => {
  const row = await db
    .selectFrom('versions')
    .select('version')
    .where('image', '=', image)
    .where('derived_from', 'is', null)
    .orderBy('version', 'desc')
    .executeTakeFirst();
  return row?.version;
};

export const findVersion = async (
  db: Database,
  image: string,
  version: number,
): Promise<VersionRow | undefined> => {
  const row = await db
    .selectFrom('versions')
    .selectAll()
    .where('image', '=', image)
    .where('version', '=', version)
    .executeTakeFirst();
  return row && fromTable(row);
};

export const versionExists = async (db: Database, image: string, version: number): Promise<boolean> =>
  (await findVersion(db, image, version)) !== undefined;

/** Numbers are handed out once: a task's fixed version never means another content later. */
export const reserveVersion = async (db: Database, image: string, at: Date): Promise<number> =>
  db.transaction().execute(async (trx) => {
    await trx
      .insertInto('images')
      .values({ name: image, next_version: 1, created_at: at.toISOString() })
      .onConflict((oc) => oc.column('name').doNothing())
      .execute();
    const { next_version } = await trx
      .selectFrom('images')
      .select('next_version')
      .where('name', '=', image)
      .executeTakeFirstOrThrow();
    await trx
      .updateTable('images')
      .set({ next_version: next_version + 1 })
      .where('name', '=', image)
      .execute();
    return next_version;
  });

/** Enter a version that exists on disk; again is no error. */
export const saveVersion = async (db: Database, row: VersionRow): Promise<void> => {
  const { image, version } = row;
  await db.transaction().execute(async (trx) => {
    const known = await trx
      .selectFrom('images')
      .select('next_version')
      .where('name', '=', image)
      .executeTakeFirst();
    if (!known) {
      await trx
        .insertInto('images')
        .values({ name: image, next_version: version + 1, created_at: row.createdAt })
        .execute();
    } else if (known.next_version <= version) {
      await trx
        .updateTable('images')
        .set({ next_version: version + 1 })
        .where('name', '=', image)
        .execute();
    }
    await trx
      .insertInto('versions')
      .values({
        image,
        version,
        created_at: row.createdAt,
        disk_bytes: row.diskBytes,
        used_bytes: row.usedBytes,
        chunks: row.chunks,
        manifest_sha256: row.manifestSha256,
        hurt_json: row.hurt.length > 0 ? JSON.stringify(row.hurt) : null,
        derived_from: row.derivedFrom,
      })
      .onConflict((oc) => oc.columns(['image', 'version']).doNothing())
      .execute();
  });
};

export const setHurt = async (
  db: Database,
  image: string,
  version: number,
  hurt: readonly string[],
): Promise<void> => {
  await db
    .updateTable('versions')
    .set({ hurt_json: hurt.length > 0 ? JSON.stringify(hurt) : null })
    .where('image', '=', image)
    .where('version', '=', version)
    .execute();
};

export const allVersions = async (db: Database): Promise<VersionRow[]> =>
  (await db.selectFrom('versions').selectAll().execute()).map(fromTable);

/** Versions that were made smaller from this one, oldest first. */
export const derivedVersions = async (
  db: Database,
  image: string,
  version: number,
): Promise<VersionRow[]> => {
  const rows = await db
    .selectFrom('versions')
    .selectAll()
    .where('image', '=', image)
    .where('derived_from', '=', version)
    .orderBy('version')
    .execute();
  return rows.map(fromTable);
};

export const dropVersion = async (db: Database, image: string, version: number): Promise<void> => {
  await db.deleteFrom('versions').where('image', '=', image).where('version', '=', version).execute();
};

const fromTable = (row: {
  image: string;
  version: number;
  created_at: string;
  disk_bytes: number;
  used_bytes: number;
  chunks: number;
  manifest_sha256: string;
  hurt_json: string | null;
  derived_from: number | null;
}): VersionRow => ({
  image: row.image,
  version: row.version,
  createdAt: row.created_at,
  diskBytes: row.disk_bytes,
  usedBytes: row.used_bytes,
  chunks: row.chunks,
  manifestSha256: row.manifest_sha256,
  hurt: row.hurt_json === null ? [] : (JSON.parse(row.hurt_json) as string[]),
  derivedFrom: row.derived_from,
});
