import type { Generated } from 'kysely';

/**
 * Every table. Portable types only (text, integer, null): PostgreSQL is to run the same schema.
 * Times that the queue computes with are milliseconds since 1970; times that people read are ISO 8601.
 * Columns that end in `_json` hold JSON text.
 */
export interface Tables {
  hosts: HostsTable;
  host_macs: { mac: string; host_id: string };
  images: { name: string; next_version: number; created_at: string };
  versions: VersionsTable;
  chunks: { id: string; size: number; damaged: number };
  uploads: UploadsTable;
  upload_pins: { upload_id: string; chunk_id: string };
  tasks: TasksTable;
  /** signed when a wipe's result is accepted, in the same transaction; never changed */
  certificates: { task_id: string; text: string; created_at: string };
  task_logs: { task_id: string; attempt: number; number: number; line: string };
  boot_tokens: BootTokensTable;
  sessions: SessionsTable;
  events: { id: Generated<number>; at: string; kind: string; subject: string; data_json: string };
}

export interface HostsTable {
  id: string;
  name: string;
  /** SMBIOS system UUID */
  uuid: string | null;
  identity_json: string | null;
  inventory_json: string | null;
  efi_loader: string | null;
  disk_json: string | null;
  created_at: string;
  last_seen: string | null;
}

export interface VersionsTable {
  image: string;
  version: number;
  created_at: string;
  /** plain bytes of all disks as they were captured */
  disk_bytes: number;
  /** plain bytes of chunks the version refers to, each counted once */
  used_bytes: number;
  chunks: number;
  manifest_sha256: string;
  /** JSON list of chunk ids that are damaged or missing; null when none is known */
  hurt_json: string | null;
  /** the version that this one was made smaller from; null for one that was captured */
  derived_from: number | null;
}

export interface UploadsTable {
  id: string;
  task_id: string;
  image: string;
  version: number;
  /** open, published or abandoned */
  state: string;
  created_at: string;
}

export interface TasksTable {
  id: string;
  /** order of creation */
  seq: number;
  host_id: string;
  type: string;
  params_json: string;
  after: string;
  state: string;
  attempt: number;
  cancel: number;
  lease_until: number | null;
  superseded: number;
  silent_since: number | null;
  waiting_since: number | null;
  created_at: number;
  started_at: number | null;
  ended_at: number | null;
  /** why it ended, where no result says so */
  reason: string | null;
  progress_json: string | null;
  durable_json: string | null;
  result_json: string | null;
}

export interface BootTokensTable {
  hash: string;
  mac: string | null;
  uuid: string | null;
  host_id: string | null;
  created_at: number;
  expires_at: number;
  /** set by the check-in that used it */
  session_hash: string | null;
}

export interface SessionsTable {
  hash: string;
  host_id: string;
  created_at: number;
  /** a request was made with it: from then on its boot token is used up */
  used: number;
  /** a later check-in of the same host took its place */
  replaced: number;
}
