import { z } from 'zod';
import { ImagingError } from '../errors.ts';
import type { Extent } from '../image/extent.ts';
import { run } from '../process/run.ts';
import { flushDevice, writeAt } from './device-io.ts';

interface Options {
  signal?: AbortSignal;
}

/** Something that makes libblkid believe in a filesystem, a table or a RAID member. */
export interface Signature {
  /** libblkid's name: ext4, linux_raid_member, gpt … */
  type: string;
  /** bytes from the start of the device */
  offset: number;
  length: number;
}

const wipefsSchema = z.object({
  signatures: z.array(
    z.object({
      type: z.string(),
      offset: z.string().regex(/^0x[0-9a-f]+$/),
      length: z.coerce.number().int().positive(),
    }),
  ),
});

/** Every signature that libblkid finds on a device, contradictions and all. Read-only. */
export const findSignatures = async (path: string, options: Options = {}): Promise<Signature[]> => {
  const args = ['--no-act', '--json', '--output', 'TYPE,OFFSET,LENGTH', path];
  const { stdout } = await run('wipefs', args, options);
  // nothing found, nothing printed
  if (stdout.trim() === '') return [];
  return wipefsSchema
    .parse(JSON.parse(stdout))
    .signatures.map(({ type, offset, length }) => ({ type, offset: Number(offset), length }));
};

/** zeroing one signature can uncover another (nested or backup superblocks) */
const ROUNDS = 20;

/**
 * Zero the signatures of former owners in the free space of a partition that was just written: an md superblock
 * near its end or a btrfs mirror would make the new filesystem "ambivalent", and such a system doesn't boot.
 * `used`: what belongs to the image, sorted and disjoint; a signature that touches it stays. Returns what went.
 *
 * @throws ImagingError DISK_WRITE_FAILED: one of them does not go away
 */
export const clearStaleSignatures = async (
  node: string,
  used: readonly Extent[],
  options: Options = {},
): Promise<Signature[]> => {
  const cleared: Signature[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const stale = (await findSignatures(node, options)).filter((found) => !touches(found, used));
    if (stale.length === 0) return cleared;
    cleared.push(...stale);
    await writeAt(
      node,
      stale.map(({ offset, length }) => ({ offset, bytes: new Uint8Array(length) })),
    );
    await flushDevice(node, options);
  }
  throw new ImagingError('DISK_WRITE_FAILED', `Cannot clear old signatures of ${node}: they come back`, {
    details: { node, cleared },
  });
};

const touches = ({ offset, length }: Signature, used: readonly Extent[]): boolean =>
  used.some((extent) => extent.offset < offset + length && offset < extent.offset + extent.length);
