import { ImagingError } from '../../../agent/errors.ts';
import type { Manifest } from '../../../agent/protocol/index.ts';
import type { State } from '../../state.ts';
import { derivedVersions, findVersion } from '../../store/images.ts';
import { readVersion, versionFolder } from '../version-folder.ts';
import type { Targets } from './layout.ts';

/**
 * The captured version that smaller ones are made from: the one asked for, or what it was made from itself.
 * @throws ImagingError IMAGE_NOT_FOUND
 */
export const originOf = async (state: State, image: string, version: number): Promise<Manifest> => {
  const row = await findVersion(state.db, image, version);
  const number = row?.derivedFrom ?? version;
  const found = row && (await readVersion(versionFolder(state.paths.images, image, number)));
  if (found) return found.manifest;
  throw new ImagingError('IMAGE_NOT_FOUND', `Cannot make ${image}@${version} smaller: no such version`);
};

/**
 * The largest sound version made from `origin` whose disks are at most these sizes, or undefined. Nothing larger that
 * fits is ever made while there is one, so a deploy that is cut off finds the same at its next attempt.
 */
export const fittingVersion = async (
  state: State,
  origin: Manifest,
  targets: Targets,
): Promise<Manifest | undefined> => {
  let best: Manifest | undefined;
  for (const { version, hurt } of await derivedVersions(state.db, origin.image, origin.version)) {
    if (hurt.length > 0) continue;
    const found = await readVersion(versionFolder(state.paths.images, origin.image, version));
    if (!found || !fits(found.manifest, origin, targets)) continue;
    if (!best || totalSize(found.manifest) > totalSize(best)) best = found.manifest;
  }
  return best;
};

/** A disk that is not named keeps its size: a version that made it smaller is not what was asked for. */
const fits = (derived: Manifest, origin: Manifest, targets: Targets): boolean =>
  derived.disks.every(({ name, size }, at) => {
    const target = targets[name];
    return target === undefined ? size === origin.disks[at]?.size : size <= target;
  });

const totalSize = ({ disks }: Manifest): number => disks.reduce((sum, { size }) => sum + size, 0);
