import type { DiskClaim } from '../disk/claim.ts';
import { claimDisk } from '../disk/claim.ts';
import type { Disk } from '../disk/disk.ts';
import { selectDisks } from '../disk/select.ts';
import { ImagingError } from '../errors.ts';
import type { DiskHint, ImageDisk, Manifest, Plan } from '../protocol/index.ts';

/** A disk of the image and the machine's disk that it goes to. */
export interface Pair {
  image: ImageDisk;
  disk: Disk;
}

/** A disk that may be written to, and what will be written. */
export interface Target {
  claim: DiskClaim;
  plan: Plan;
}

/**
 * Which of this machine's disks takes which disk of the image. One disk: the hint, or the machine's only disk.
 * Several: a hint for each, in order; without hints only where every disk of the image is here again by its
 * serial number. Sizes alone never decide.
 *
 * @throws ImagingError DISK_NOT_FOUND, DISK_AMBIGUOUS
 */
export const pairDisks = (
  manifest: Manifest,
  disks: readonly Disk[],
  hints: { disk?: DiskHint | undefined; disks?: readonly DiskHint[] | undefined },
): Pair[] => {
  const wanted = hints.disks ?? (manifest.disks.length === 1 ? [hints.disk] : serialsOf(manifest));
  if (wanted?.length !== manifest.disks.length) {
    const list = manifest.disks.map(({ name, size, model }) => `${name}: ${size} bytes ${model}`.trim());
    throw new ImagingError(
      'DISK_AMBIGUOUS',
      `Cannot deploy: the image has ${manifest.disks.length} disks (${list.join('; ')}); name as many of this machine's, in that order`,
      { details: { disks: list } },
    );
  }
  const chosen = selectDisks(disks, wanted, 'deploy');
  return manifest.disks.flatMap((image, at) => {
    const disk = chosen[at];
    return disk ? [{ image, disk }] : [];
  });
};

const serialsOf = ({ disks }: Manifest): DiskHint[] | undefined =>
  disks.every(({ serial }) => serial !== '') ? disks.map(({ serial }) => ({ serial })) : undefined;

/** All claims or none. `await using` releases them. */
export const claimTargets = async (
  planned: readonly { disk: Disk; plan: Plan }[],
  signal: AbortSignal,
): Promise<{ targets: Target[] } & AsyncDisposable> => {
  await using held = new AsyncDisposableStack();
  const targets: Target[] = [];
  for (const { disk, plan } of planned) {
    targets.push({ claim: held.use(await claimDisk(disk, { signal })), plan });
  }
  const kept = held.move();
  return { targets, [Symbol.asyncDispose]: () => kept.disposeAsync() };
};
