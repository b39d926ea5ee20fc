import { createPublicKey, hash, type KeyObject, sign, verify } from 'node:crypto';
import { layoutProblem } from '../disk/layout-check.ts';
import { ImagingError } from '../errors.ts';
import { type ImageDisk, type Manifest, manifestSchema, type SignedManifest } from '../protocol/manifest.ts';
import { partitionProblem } from './partition-check.ts';

const MAX_BOOT_AREA = 1024 * 1024;
const LARGEST_SECTOR = 4096;

/**
 * A manifest as the bytes of manifest.json: members in the order of the schema, two spaces, a newline at the
 * end. Equal manifests are equal files.
 *
 * @throws ImagingError IMAGE_INVALID
 */
export const manifestText = (manifest: Manifest): string => {
  const parsed = parseManifest(manifest);
  return `${JSON.stringify({ ...parsed, tools: sortedByKey(parsed.tools) }, null, 2)}\n`;
};

/** Sign manifest.json with the server's Ed25519 key. What is signed is exactly this text in UTF-8. */
export const signManifest = (text: string, privateKey: KeyObject): SignedManifest => ({
  manifest: text,
  signature: sign(null, Buffer.from(text), privateKey).toString('base64'),
  keyId: keyId(createPublicKey(privateKey).export({ type: 'spki', format: 'der' })),
});

/**
 * The manifest of a signed text: signature first, then JSON, schema and consistency. `publicKey` is the
 * server's SPKI in base64, as site.json carries it.
 *
 * @throws ImagingError IMAGE_UNTRUSTED (another key, or the text was changed), IMAGE_INVALID
 */
export const verifyManifest = (signed: SignedManifest, publicKey: string): Manifest => {
  const spki = Buffer.from(publicKey, 'base64');
  if (signed.keyId !== keyId(spki)) {
    throw untrusted(`it is signed with key ${signed.keyId}, this server's is ${keyId(spki)}`);
  }
  if (!isSignedBy(signed, spki)) throw untrusted('its signature does not match');
  return parseManifest(parseJson(signed.manifest));
};

/** First 16 hex digits of the SHA-256 of the SPKI: tells keys apart in messages, proves nothing. */
export const keyId = (spki: Uint8Array): string => hash('sha256', spki).slice(0, 16);

const isSignedBy = ({ manifest, signature }: SignedManifest, spki: Buffer): boolean => {
  try {
    const key = createPublicKey({ key: spki, type: 'spki', format: 'der' });
    // another key type would choose its own algorithm below
    if (key.asymmetricKeyType !== 'ed25519') return false;
    return verify(null, Buffer.from(manifest), key, Buffer.from(signature, 'base64'));
  } catch (error) {
    throw untrusted(`the public key is unusable (${error instanceof Error ? error.message : error})`);
  }
};

const parseJson = (text: string): unknown => {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw invalid('it is not JSON', { cause: String(error) });
  }
};

/**
 * Schema, then what a schema cannot say: partitions within their disk and apart from each other, names and
 * numbers once, files named after their partition, chunk counts that follow from the sizes, damage inside what it
 * damages, volumes that a partition can hold.
 *
 * @throws ImagingError IMAGE_INVALID
 */
export const parseManifest = (value: unknown): Manifest => {
  const { success, data, error } = manifestSchema.safeParse(value);
  if (!success) {
    const [issue] = error.issues;
    throw invalid(`${issue?.path.join('.') || 'it'}: ${issue?.message}`, {
      issues: error.issues.slice(0, 10),
    });
  }
  const { version, derivedFrom, chunkSize } = data;
  if (derivedFrom !== null && derivedFrom >= version) {
    throw invalid(`version ${version} is said to be made from version ${derivedFrom}`);
  }
  // what is written past the cache begins and ends at sectors, whatever the disk's are
  if (chunkSize % LARGEST_SECTOR !== 0) throw invalid(`chunks of ${chunkSize} bytes`);
  for (const [number, disk] of data.disks.entries()) {
    if (disk.name !== `d${number + 1}`) throw invalid(`disk ${number + 1} is called ${disk.name}`);
    checkDisk(disk, chunkSize);
  }
  return data;
};

const checkDisk = (disk: ImageDisk, chunkSize: number): void => {
  const { name, partitions, bootArea } = disk;
  if (bootArea && bootArea.name !== `${name}.boot`)
    throw invalid(`the boot area of ${name} is ${bootArea.name}`);
  if (bootArea && bootArea.size > MAX_BOOT_AREA)
    throw invalid(`the boot area of ${name} has ${bootArea.size} bytes`);
  const problem = layoutProblem(disk);
  if (problem) throw invalid(`${name}: ${problem}`);
  for (const partition of partitions) {
    const wrong = partitionProblem(partition, name, chunkSize);
    if (wrong) throw invalid(wrong);
  }
};

const sortedByKey = (record: Record<string, string>): Record<string, string> =>
  Object.fromEntries(Object.entries(record).toSorted(([a], [b]) => (a < b ? -1 : 1)));

const invalid = (reason: string, details: Record<string, unknown> = {}): ImagingError =>
  new ImagingError('IMAGE_INVALID', `Cannot use the manifest: ${reason}`, { details });

const untrusted = (reason: string): ImagingError =>
  new ImagingError('IMAGE_UNTRUSTED', `Cannot trust the manifest: ${reason}`);
