import { ImagingError } from '../../agent/errors.ts';
import { checkInAnswerSchema, checkInRequestSchema, type Identity } from '../../agent/protocol/index.ts';
import type { State } from '../state.ts';
import { addHost, findMachine, getHost, type Host, saveIdentity } from '../store/hosts.ts';
import { acceptBootToken, createSession } from '../store/tokens.ts';
import type { App } from './types.ts';

/** POST /agent/v1/check-in: a boot token and an identity against a session token. */
export const checkInRoute = (app: App, state: State): void => {
  app.post(
    '/agent/v1/check-in',
    {
      schema: { body: checkInRequestSchema, response: { 200: checkInAnswerSchema } },
      config: { rateLimit: { max: state.settings.openRequestsPerMinute, timeWindow: 60_000 } },
      bodyLimit: 65_536,
    },
    async (request) => {
      const { token, identity } = request.body;
      const now = state.now();
      const boot = await acceptBootToken(state.db, token, identity, now);
      const host = boot.hostId ? await getHost(state.db, boot.hostId) : await register(state, identity);
      const session = await createSession(state.db, host.id, boot.hash, now);
      await state.board.hostReturned(host.id);
      await saveIdentity(state.db, host, identity, new Date(now));
      state.announce({ kind: 'host', subject: host.id, data: { name: host.name, what: 'checked in' } });
      request.log.info({ host: host.name, bootSeconds: request.body.bootSeconds }, 'machine checked in');
      return {
        session,
        host: { id: host.id, name: host.name },
        serverTime: new Date(now).toISOString(),
      };
    },
  );
};

/** The host of a token that was made for an unknown machine; a new one where that is allowed. */
const register = async (state: State, identity: Identity): Promise<Host> => {
  const known = await findMachine(state.db, identity);
  if (known) return known;
  if (!state.registerUnknown) {
    throw new ImagingError('UNAUTHORIZED', 'Cannot check in: this machine is not registered');
  }
  const host = await addHost(
    state.db,
    { name: await freeName(state, identity), macs: identity.macs, uuid: identity.uuid },
    new Date(state.now()),
  );
  await state.board.add({ hostId: host.id, type: 'inventory', params: {}, after: 'reboot' });
  return host;
};

const freeName = async (state: State, identity: Identity): Promise<string> => {
  const mac = identity.macs[0]?.replaceAll(':', '') ?? '';
  const serial = identity.serial?.replaceAll(/[^\w.-]/g, '').slice(0, 40);
  if (!serial) return `host-${mac}`;
  const taken = await state.db.selectFrom('hosts').select('id').where('name', '=', serial).executeTakeFirst();
  return taken ? `${serial}-${mac}` : serial;
};
