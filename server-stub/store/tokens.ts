import { ImagingError } from '../../agent/errors.ts';
import type { Identity } from '../../agent/protocol/index.ts';
import type { Database } from './database.ts';
import { hashToken, newToken } from './secrets.ts';

export interface BootTokenFor {
  mac: string | null;
  uuid: string | null;
  hostId: string | null;
}

/** A single-use token for one boot of one machine. @returns the token; the database keeps its hash */
export const createBootToken = async (
  db: Database,
  machine: BootTokenFor,
  now: number,
  goodForMs: number,
): Promise<string> => {
  const token = newToken();
  await db.deleteFrom('boot_tokens').where('expires_at', '<', now).execute();
  await db
    .insertInto('boot_tokens')
    .values({
      hash: hashToken(token),
      mac: machine.mac,
      uuid: machine.uuid,
      host_id: machine.hostId,
      created_at: now,
      expires_at: now + goodForMs,
      session_hash: null,
    })
    .execute();
  return token;
};

/**
 * The machine that a boot token was made for, if `identity` is that machine. A token whose session was
 * never used may be presented again: the answer to the first check-in was lost on the wire.
 *
 * @throws ImagingError UNAUTHORIZED (unknown, expired, used up, another machine's)
 */
export const acceptBootToken = async (
  db: Database,
  token: string,
  identity: Identity,
  now: number,
): Promise<{ hash: string; hostId: string | null }> => {
  const hash = hashToken(token);
  const row = await db.selectFrom('boot_tokens').selectAll().where('hash', '=', hash).executeTakeFirst();
  if (!row || row.expires_at < now) throw refused('the boot token is unknown or has expired');
  const same = row.mac === null ? row.uuid === identity.uuid : identity.macs.includes(row.mac);
  if (!same) throw refused('the boot token was made for another machine');
  if (row.session_hash !== null) {
    const session = await db
      .selectFrom('sessions')
      .select('used')
      .where('hash', '=', row.session_hash)
      .executeTakeFirst();
    if (!session || session.used === 1) throw refused('the boot token has been used');
  }
  return { hash, hostId: row.host_id };
};

/** Open the session of a machine that has checked in; its older sessions end. @returns the bearer token */
export const createSession = async (
  db: Database,
  hostId: string,
  bootHash: string,
  now: number,
): Promise<string> => {
  const token = newToken();
  const hash = hashToken(token);
  await db.transaction().execute(async (trx) => {
    await trx.deleteFrom('sessions').where('host_id', '=', hostId).where('replaced', '=', 1).execute();
    await trx.updateTable('sessions').set({ replaced: 1 }).where('host_id', '=', hostId).execute();
    await trx
      .insertInto('sessions')
      .values({ hash, host_id: hostId, created_at: now, used: 0, replaced: 0 })
      .execute();
    await trx
      .updateTable('boot_tokens')
      .set({ session_hash: hash, host_id: hostId })
      .where('hash', '=', bootHash)
      .execute();
  });
  return token;
};

/**
 * The host that a session token speaks for.
 * @throws ImagingError UNAUTHORIZED (unknown), LEASE_LOST (the machine has checked in again since)
 */
export const acceptSession = async (db: Database, token: string): Promise<{ hostId: string }> => {
  const hash = hashToken(token);
  const row = await db.selectFrom('sessions').selectAll().where('hash', '=', hash).executeTakeFirst();
  if (!row) throw refused('the session token is unknown');
  if (row.replaced === 1) {
    throw new ImagingError('LEASE_LOST', 'Cannot go on: this machine has checked in again since');
  }
  if (row.used === 0) await db.updateTable('sessions').set({ used: 1 }).where('hash', '=', hash).execute();
  return { hostId: row.host_id };
};

const refused = (reason: string): ImagingError =>
  new ImagingError('UNAUTHORIZED', `Cannot accept the request: ${reason}`);
