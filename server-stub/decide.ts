import type { BootDecision } from './netboot/boot-decision.ts';
import type { State } from './state.ts';
import { findMachine } from './store/hosts.ts';
import { createBootToken } from './store/tokens.ts';

/**
 * What a machine that asks over the network boots: the agent if there is a task for it (or it is unknown
 * and unknown machines are to be registered), else its own disk.
 */
export const decideBoot = async (
  state: State,
  machine: { mac?: string; uuid?: string },
): Promise<BootDecision> => {
  const { mac, uuid } = machine;
  const host = await findMachine(state.db, { macs: mac ? [mac] : [], uuid });
  const wanted = host ? state.board.hasOpen(host.id) : state.registerUnknown && (mac ?? uuid) !== undefined;
  if (wanted) {
    const bound = { mac: mac ?? null, uuid: uuid ?? null, hostId: host?.id ?? null };
    const token = await createBootToken(state.db, bound, state.now(), state.settings.bootTokenMs);
    return { kind: 'agent', token };
  }
  return host?.efiLoader ? { kind: 'disk', efiLoader: host.efiLoader } : { kind: 'disk' };
};
