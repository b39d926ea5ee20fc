import { ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';
import type { FilesystemDriver } from './filesystem.ts';
import { probe } from './probe.ts';

/** Swap areas: no content is kept, only UUID and label, because fstab and resume= name them. */
export const swap: FilesystemDriver = {
  types: ['swap'],
  growable: false,

  /** A hibernated system's area has another signature (libblkid: swsuspend), so this one is unused. */
  check: async (device, signal) => {
    const { type } = await probe(device, { signal });
    if (type !== 'swap') {
      throw new ImagingError('FILESYSTEM_CHECK_FAILED', `Cannot trust ${device}: not a swap area`);
    }
  },

  usage: async () => ({ extents: [], minimumBytes: null }),

  recreate: async (device, { uuid, label }, signal) => {
    const identity = [...(uuid ? ['--uuid', uuid] : []), ...(label ? ['--label', label] : [])];
    await run('mkswap', ['--force', ...identity, device], { signal });
    const made = await probe(device, { signal });
    if (made.type === 'swap' && (!uuid || made.uuid === uuid) && made.label === label) return;
    throw new ImagingError(
      'READ_BACK_MISMATCH',
      `Cannot make a swap area on ${device}: it reads back as ${JSON.stringify(made)}`,
    );
  },
};
