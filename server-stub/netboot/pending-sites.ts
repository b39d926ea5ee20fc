import { randomBytes } from 'node:crypto';
import type { Site } from '../../agent/protocol/index.ts';

/** Per-boot archives that a boot script has promised and a machine has not fetched yet. */
export interface PendingSites {
  /** a handle for this site, good for one fetch */
  add(site: Site): string;
  /** undefined if unknown, used up or too old */
  take(nonce: string): Site | undefined;
}

export interface PendingSitesOptions {
  /** how long a machine may take from its script to its archive: kernel and initramfs come first */
  lifetimeMs?: number;
  limit?: number;
  now?: () => number;
  nonce?: () => string;
}

/** Kept in memory only: after a restart of the server, a machine in the middle of loading starts again. */
export const createPendingSites = (options: PendingSitesOptions = {}): PendingSites => {
  const { lifetimeMs = 15 * 60_000, limit = 10_000, now = Date.now } = options;
  const nonce = options.nonce ?? (() => randomBytes(16).toString('hex'));
  const pending = new Map<string, { site: Site; expires: number }>();
  // insertion order is order of age
  const forgetOld = (): void => {
    for (const [name, { expires }] of pending) {
      if (expires > now() && pending.size < limit) return;
      pending.delete(name);
    }
  };
  return {
    add: (site) => {
      forgetOld();
      const name = nonce();
      pending.set(name, { site, expires: now() + lifetimeMs });
      return name;
    },
    take: (name) => {
      const found = pending.get(name);
      if (!found || found.expires <= now()) return undefined;
      pending.delete(name);
      return found.site;
    },
  };
};
