import type { State } from '../state.ts';
import { forgetChunks, markDamaged } from '../store/chunks.ts';
import { allVersions, setHurt } from '../store/images.ts';

/**
 * Look at these chunks now. What is damaged is marked (so that the next capture brings it anew) and every
 * version that needs it is marked as hurt.
 *
 * @returns the damaged and the missing ones
 */
export const checkChunks = async (
  state: State,
  ids: Iterable<string>,
  signal?: AbortSignal,
): Promise<{ damaged: string[]; missing: string[] }> => {
  const { store, lock } = state.library;
  const first = await store.verify(ids, signal ? { signal } : {});
  const suspected = [...first.damaged, ...first.missing];
  if (suspected.length === 0) return first;
  return lock.exclusive(async () => {
    // a capture may have brought one of them anew in the meantime
    const found = await store.verify(suspected, signal ? { signal } : {});
    await noteDefects(state, found);
    return found;
  });
};

const noteDefects = async (
  state: State,
  { damaged, missing }: { damaged: string[]; missing: string[] },
): Promise<void> => {
  if (damaged.length + missing.length === 0) return;
  await markDamaged(state.db, damaged);
  await forgetChunks(state.db, missing);
  await forEachVersion(state, (ids, hurt) =>
    [...damaged, ...missing].reduce((all, id) => (ids.has(id) ? all.add(id) : all), new Set(hurt)),
  );
};

/** These chunks were stored anew: versions are no longer hurt by them. */
export const chunksHealed = (state: State, healed: ReadonlySet<string>): Promise<void> =>
  forEachVersion(state, (_ids, hurt) => new Set(hurt.filter((id) => !healed.has(id))));

const forEachVersion = async (
  state: State,
  decide: (ids: ReadonlySet<string>, hurt: readonly string[]) => Set<string>,
): Promise<void> => {
  const failures: unknown[] = [];
  for (const { image, version, hurt } of await allVersions(state.db)) {
    try {
      const { ids } = await state.library.indexOf(image, version);
      await changeHurt(state, { image, version, hurt }, [...decide(ids, hurt)]);
    } catch (error) {
      // a version whose index cannot be read does not keep the others from being marked
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
};

/** Enter and announce what hurts a version: chunk ids and names of its own files. */
export const changeHurt = async (
  state: State,
  { image, version, hurt }: { image: string; version: number; hurt: readonly string[] },
  now: readonly string[],
): Promise<void> => {
  if (now.length === hurt.length && now.every((name) => hurt.includes(name))) return;
  await setHurt(state.db, image, version, now);
  state.announce({ kind: 'image', subject: image, data: { version, hurt: now.length } });
};
