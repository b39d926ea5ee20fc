import { randomUUID } from 'node:crypto';
import type { Selectable } from 'kysely';
import { ImagingError } from '../../agent/errors.ts';
import type { DiskHint, Identity, Inventory } from '../../agent/protocol/index.ts';
import type { Database } from './database.ts';
import type { HostsTable } from './tables.ts';

export interface Host {
  id: string;
  name: string;
  macs: string[];
  uuid: string | null;
  identity: Identity | null;
  inventory: Inventory | null;
  efiLoader: string | null;
  disk: DiskHint | null;
  createdAt: string;
  lastSeen: string | null;
}

export interface NewHost {
  name: string;
  macs: string[];
  uuid?: string | undefined;
  disk?: DiskHint | undefined;
}

/** @throws ImagingError CONFLICT (name or MAC is another host's) */
export const addHost = async (db: Database, host: NewHost, now: Date): Promise<Host> => {
  const id = randomUUID();
  await db.transaction().execute(async (trx) => {
    const twin = await trx
      .selectFrom('hosts')
      .leftJoin('host_macs', 'host_macs.host_id', 'hosts.id')
      .select(['hosts.name', 'host_macs.mac'])
      .where((eb) => eb.or([eb('hosts.name', '=', host.name), eb('host_macs.mac', 'in', host.macs)]))
      .executeTakeFirst();
    if (twin) {
      const what = twin.name === host.name ? `the name ${host.name}` : `the MAC address ${twin.mac}`;
      throw new ImagingError('CONFLICT', `Cannot add host ${host.name}: ${what} is taken by ${twin.name}`);
    }
    await trx
      .insertInto('hosts')
      .values({
        id,
        name: host.name,
        uuid: host.uuid ?? null,
        identity_json: null,
        inventory_json: null,
        efi_loader: null,
        disk_json: host.disk ? JSON.stringify(host.disk) : null,
        created_at: now.toISOString(),
        last_seen: null,
      })
      .execute();
    await trx
      .insertInto('host_macs')
      .values([...new Set(host.macs)].map((mac) => ({ mac, host_id: id })))
      .execute();
  });
  return getHost(db, id);
};

/** By id, name or MAC address. @throws ImagingError NOT_FOUND */
export const getHost = async (db: Database, key: string): Promise<Host> => {
  const mac = key.toLowerCase().replaceAll('-', ':');
  const row = await db
    .selectFrom('hosts')
    .selectAll('hosts')
    .where((eb) =>
      eb.or([
        eb('id', '=', key),
        eb('name', '=', key),
        eb('id', 'in', eb.selectFrom('host_macs').select('host_id').where('mac', '=', mac)),
      ]),
    )
    .executeTakeFirst();
  if (!row) throw new ImagingError('NOT_FOUND', `Cannot find host ${key}: no such id, name or MAC address`);
  const macs = await db.selectFrom('host_macs').select('mac').where('host_id', '=', row.id).execute();
  return fromTable(
    row,
    macs.map(({ mac: text }) => text),
  );
};

export const listHosts = async (db: Database): Promise<Host[]> => {
  const rows = await db.selectFrom('hosts').selectAll().orderBy('name').execute();
  const macs = Map.groupBy(await db.selectFrom('host_macs').selectAll().execute(), (row) => row.host_id);
  return rows.map((row) =>
    fromTable(
      row,
      (macs.get(row.id) ?? []).map(({ mac }) => mac),
    ),
  );
};

/** Names by id, for lists of other things. */
export const hostNames = async (db: Database): Promise<Map<string, string>> => {
  const rows = await db.selectFrom('hosts').select(['id', 'name']).execute();
  return new Map(rows.map(({ id, name }) => [id, name]));
};

/**
 * The host that a machine is: by any of its MAC addresses, else by its SMBIOS UUID where exactly one
 * host has it (vendors ship whole series with one UUID).
 */
export const findMachine = async (
  db: Database,
  machine: { macs: readonly string[]; uuid?: string | undefined },
): Promise<Host | undefined> => {
  if (machine.macs.length > 0) {
    const row = await db
      .selectFrom('host_macs')
      .select('host_id')
      .where('mac', 'in', machine.macs)
      .executeTakeFirst();
    if (row) return getHost(db, row.host_id);
  }
  if (!machine.uuid) return undefined;
  const rows = await db.selectFrom('hosts').select('id').where('uuid', '=', machine.uuid).execute();
  return rows.length === 1 && rows[0] ? getHost(db, rows[0].id) : undefined;
};

export const removeHost = async (db: Database, id: string): Promise<void> => {
  await db.deleteFrom('hosts').where('id', '=', id).execute();
};

/** What a machine says of itself at check-in. The UUID is learned once and never overwritten. */
export const saveIdentity = async (db: Database, host: Host, identity: Identity, at: Date): Promise<void> => {
  await db
    .updateTable('hosts')
    .set({
      identity_json: JSON.stringify(identity),
      uuid: host.uuid ?? identity.uuid ?? null,
      last_seen: at.toISOString(),
    })
    .where('id', '=', host.id)
    .execute();
};

export const saveInventory = async (db: Database, hostId: string, inventory: Inventory): Promise<void> => {
  await db
    .updateTable('hosts')
    .set({ inventory_json: JSON.stringify(inventory), efi_loader: inventory.efiLoader ?? null })
    .where('id', '=', hostId)
    .execute();
};

export const saveLastSeen = async (db: Database, seen: ReadonlyMap<string, number>): Promise<void> => {
  if (seen.size === 0) return;
  await db.transaction().execute(async (trx) => {
    for (const [id, at] of seen) {
      await trx
        .updateTable('hosts')
        .set({ last_seen: new Date(at).toISOString() })
        .where('id', '=', id)
        .execute();
    }
  });
};

const fromTable = (row: Selectable<HostsTable>, macs: string[]): Host => ({
  id: row.id,
  name: row.name,
  macs,
  uuid: row.uuid,
  identity: fromJson<Identity>(row.identity_json),
  inventory: fromJson<Inventory>(row.inventory_json),
  efiLoader: row.efi_loader,
  disk: fromJson<DiskHint>(row.disk_json),
  createdAt: row.created_at,
  lastSeen: row.last_seen,
});

const fromJson = <T>(text: string | null): T | null => (text === null ? null : (JSON.parse(text) as T));
