import type { Kysely } from 'kysely';

/** The first schema. Later changes are new files: a migration that has shipped is never edited. */
export const up = async (db: Kysely<unknown>): Promise<void> => {
  const { schema } = db;
  await schema
    .createTable('hosts')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('name', 'text', (c) => c.notNull().unique())
    .addColumn('uuid', 'text')
    .addColumn('identity_json', 'text')
    .addColumn('inventory_json', 'text')
    .addColumn('efi_loader', 'text')
    .addColumn('disk_json', 'text')
    .addColumn('created_at', 'text', (c) => c.notNull())
    .addColumn('last_seen', 'text')
    .execute();
  await schema.createIndex('hosts_uuid').on('hosts').column('uuid').execute();
  await schema
    .createTable('host_macs')
    .addColumn('mac', 'text', (c) => c.primaryKey())
    .addColumn('host_id', 'text', (c) => c.notNull().references('hosts.id').onDelete('cascade'))
    .execute();
  await schema.createIndex('host_macs_host').on('host_macs').column('host_id').execute();
  await schema
    .createTable('images')
    .addColumn('name', 'text', (c) => c.primaryKey())
    .addColumn('next_version', 'integer', (c) => c.notNull())
    .addColumn('created_at', 'text', (c) => c.notNull())
    .execute();
  await schema
    .createTable('versions')
    .addColumn('image', 'text', (c) => c.notNull().references('images.name').onDelete('cascade'))
    .addColumn('version', 'integer', (c) => c.notNull())
    .addColumn('created_at', 'text', (c) => c.notNull())
    .addColumn('disk_bytes', 'bigint', (c) => c.notNull())
    .addColumn('used_bytes', 'bigint', (c) => c.notNull())
    .addColumn('chunks', 'integer', (c) => c.notNull())
    .addColumn('manifest_sha256', 'text', (c) => c.notNull())
    .addColumn('hurt_json', 'text')
    .addPrimaryKeyConstraint('versions_pk', ['image', 'version'])
    .execute();
  await schema
    .createTable('chunks')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('size', 'integer', (c) => c.notNull())
    .addColumn('damaged', 'integer', (c) => c.notNull())
    .execute();
  await schema
    .createTable('tasks')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('seq', 'integer', (c) => c.notNull().unique())
    .addColumn('host_id', 'text', (c) => c.notNull().references('hosts.id').onDelete('cascade'))
    .addColumn('type', 'text', (c) => c.notNull())
    .addColumn('params_json', 'text', (c) => c.notNull())
    .addColumn('after', 'text', (c) => c.notNull())
    .addColumn('state', 'text', (c) => c.notNull())
    .addColumn('attempt', 'integer', (c) => c.notNull())
    .addColumn('cancel', 'integer', (c) => c.notNull())
    .addColumn('lease_until', 'bigint')
    .addColumn('superseded', 'integer', (c) => c.notNull())
    .addColumn('silent_since', 'bigint')
    .addColumn('waiting_since', 'bigint')
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .addColumn('started_at', 'bigint')
    .addColumn('ended_at', 'bigint')
    .addColumn('reason', 'text')
    .addColumn('progress_json', 'text')
    .addColumn('durable_json', 'text')
    .addColumn('result_json', 'text')
    .execute();
  await schema.createIndex('tasks_state').on('tasks').column('state').execute();
  await schema.createIndex('tasks_host').on('tasks').column('host_id').execute();
  await schema
    .createTable('task_logs')
    .addColumn('task_id', 'text', (c) => c.notNull().references('tasks.id').onDelete('cascade'))
    .addColumn('attempt', 'integer', (c) => c.notNull())
    .addColumn('number', 'integer', (c) => c.notNull())
    .addColumn('line', 'text', (c) => c.notNull())
    .addPrimaryKeyConstraint('task_logs_pk', ['task_id', 'attempt', 'number'])
    .execute();
  await schema
    .createTable('uploads')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('task_id', 'text', (c) => c.notNull().unique())
    .addColumn('image', 'text', (c) => c.notNull())
    .addColumn('version', 'integer', (c) => c.notNull())
    .addColumn('state', 'text', (c) => c.notNull())
    .addColumn('created_at', 'text', (c) => c.notNull())
    .execute();
  await schema
    .createTable('upload_pins')
    .addColumn('upload_id', 'text', (c) => c.notNull().references('uploads.id').onDelete('cascade'))
    .addColumn('chunk_id', 'text', (c) => c.notNull())
    .addPrimaryKeyConstraint('upload_pins_pk', ['upload_id', 'chunk_id'])
    .execute();
  await schema
    .createTable('boot_tokens')
    .addColumn('hash', 'text', (c) => c.primaryKey())
    .addColumn('mac', 'text')
    .addColumn('uuid', 'text')
    .addColumn('host_id', 'text', (c) => c.references('hosts.id').onDelete('cascade'))
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .addColumn('expires_at', 'bigint', (c) => c.notNull())
    .addColumn('session_hash', 'text')
    .execute();
  await schema
    .createTable('sessions')
    .addColumn('hash', 'text', (c) => c.primaryKey())
    .addColumn('host_id', 'text', (c) => c.notNull().references('hosts.id').onDelete('cascade'))
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .addColumn('used', 'integer', (c) => c.notNull())
    .addColumn('replaced', 'integer', (c) => c.notNull())
    .execute();
  await schema
    .createTable('events')
    .addColumn('id', 'integer', (c) => c.primaryKey().autoIncrement())
    .addColumn('at', 'text', (c) => c.notNull())
    .addColumn('kind', 'text', (c) => c.notNull())
    .addColumn('subject', 'text', (c) => c.notNull())
    .addColumn('data_json', 'text', (c) => c.notNull())
    .execute();
};
