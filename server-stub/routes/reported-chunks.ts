import { z } from 'zod';
import { sha256Schema, type TaskResult } from '../../agent/protocol/index.ts';
import { checkChunks } from '../images/hurt.ts';
import type { State } from '../state.ts';

const detailsSchema = z.object({
  id: sha256Schema.optional(),
  ids: z.array(sha256Schema).max(1000).optional(),
});

/**
 * A machine met a chunk that is not what its name says. It may have been the network or the machine's
 * memory: this server looks for itself, and only then calls versions hurt.
 */
export const checkReportedChunks = async (state: State, { error }: TaskResult): Promise<void> => {
  if (error?.code !== 'CHUNK_CORRUPT' && error?.code !== 'CHUNK_MISSING') return;
  const details = detailsSchema.safeParse(error.details);
  const ids = details.success ? [details.data.id ?? [], details.data.ids ?? []].flat() : [];
  if (ids.length > 0) await checkChunks(state, ids);
};
