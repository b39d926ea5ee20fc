import { ImagingError } from '../errors.ts';
import { verifyManifest } from '../image/manifest.ts';
import type { ImageFile, Manifest } from '../protocol/index.ts';
import type { TaskContext } from './context.ts';
import { sha256 } from './disk-facts.ts';

/** An image version as a deploy needs it: signature and every file's hash are checked already. */
export interface FetchedImage {
  /** the signed text of manifest.json */
  text: string;
  manifest: Manifest;
  files: Map<string, Uint8Array>;
}

/** @throws ImagingError IMAGE_NOT_FOUND, IMAGE_UNTRUSTED, IMAGE_INVALID */
export const fetchImage = async (
  name: string,
  version: number,
  context: Pick<TaskContext, 'server' | 'config' | 'signal'>,
): Promise<FetchedImage> => {
  const { server, config, signal } = context;
  const signed = await server.version(name, version, signal);
  const manifest = verifyManifest(signed, config.publicKey);
  if (manifest.image !== name || manifest.version !== version) {
    throw new ImagingError(
      'IMAGE_UNTRUSTED',
      `Cannot use ${name} version ${version}: the server sent ${manifest.image} version ${manifest.version}`,
    );
  }
  const files = new Map<string, Uint8Array>();
  for (const file of filesOf(manifest)) {
    const bytes = await server.file(name, version, file.name, file.size, signal);
    if (bytes.length !== file.size || sha256(bytes) !== file.sha256) {
      throw new ImagingError(
        'IMAGE_INVALID',
        `Cannot use ${name} version ${version}: ${file.name} is not what the manifest names`,
      );
    }
    files.set(file.name, bytes);
  }
  return { text: signed.manifest, manifest, files };
};

const filesOf = (manifest: Manifest): ImageFile[] =>
  manifest.disks.flatMap(({ bootArea, partitions }) =>
    [bootArea, ...partitions.flatMap(({ index, map }) => [index, map])].filter((file) => file !== null),
  );

/** A file that the manifest lists; its absence would be a defect of fetchImage. */
export const fileOf = (image: FetchedImage, name: string): Uint8Array => {
  const bytes = image.files.get(name);
  if (!bytes)
    throw new ImagingError(
      'IMAGE_INVALID',
      `Cannot use ${image.manifest.image}: ${name} is not in its manifest`,
    );
  return bytes;
};
