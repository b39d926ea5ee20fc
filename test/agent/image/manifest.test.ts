import { generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { keyId, manifestText, signManifest, verifyManifest } from '../../../agent/image/manifest.ts';
import { run } from '../../../agent/process/run.ts';
import type { Manifest } from '../../../agent/protocol/manifest.ts';
import { temporaryFolder } from './helpers.ts';

const { privateKey, publicKey } = generateKeyPairSync('ed25519');
const spki = publicKey.export({ type: 'spki', format: 'der' });
const trusted = spki.toString('base64');
const MIB = 1024 * 1024;

const partition = (number: number, start: number, size: number): Manifest['disks'][0]['partitions'][0] => ({
  name: `p${number}`,
  number,
  start,
  size,
  type: '0fc63daf-8483-4772-8e79-3d69d8477de4',
  uuid: '0e5e2f3e-6a5f-4c61-9c5e-6a3f3f7d2b11',
  label: '',
  attributes: '',
  role: 'os',
  filesystem: { type: 'ext4', uuid: '', label: '', minimumBytes: null, usedBytes: null },
  method: 'used',
  reason: '',
  index: { name: `p${number}.caibx`, size: 144, sha256: 'a'.repeat(64), chunks: Math.ceil(size / MIB) },
  map: { name: `p${number}.map`, size: 40, sha256: 'b'.repeat(64) },
  bootRecord: null,
  contains: [],
  decryptedFrom: null,
  damaged: [],
});

const manifest = (): Manifest => ({
  format: 1,
  image: 'lab-pc',
  version: 3,
  derivedFrom: null,
  createdAt: '2026-11-23T09:00:00Z',
  firmware: 'uefi',
  chunkSize: MIB,
  disks: [
    {
      name: 'd1',
      size: 100 * MIB,
      logicalSectorSize: 512,
      model: 'disk',
      serial: 'S1',
      table: 'gpt',
      tableId: '',
      bootArea: { name: 'd1.boot', size: MIB, sha256: 'c'.repeat(64) },
      extended: null,
      partitions: [partition(1, MIB, 10 * MIB), partition(2, 11 * MIB, 20 * MIB + 512)],
    },
  ],
  os: null,
  tools: { partclone: '0.3.36', e2fsprogs: '1.47.2' },
});

/** a manifest with one thing changed */
const changed = (change: (disk: Manifest['disks'][0], whole: Manifest) => void): Manifest => {
  const copy = structuredClone(manifest());
  const [disk] = copy.disks;
  if (disk) change(disk, copy);
  return copy;
};
const first = (disk: Manifest['disks'][0]) => disk.partitions[0] as Manifest['disks'][0]['partitions'][0];

test('a signed manifest is the manifest that was signed', (t) => {
  const signed = signManifest(manifestText(manifest()), privateKey);
  t.deepEqual(verifyManifest(signed, trusted), manifest());
  t.is(signed.keyId, keyId(spki));
  t.regex(signed.keyId, /^[0-9a-f]{16}$/);
});

test('openssl agrees with the signature', async (t) => {
  const folder = await temporaryFolder(t);
  const { manifest: text, signature } = signManifest(manifestText(manifest()), privateKey);
  await writeFile(join(folder, 'manifest.json'), text);
  await writeFile(join(folder, 'signature'), Buffer.from(signature, 'base64'));
  await writeFile(join(folder, 'server.pem'), publicKey.export({ type: 'spki', format: 'pem' }));
  const files = ['-inkey', 'server.pem', '-in', 'manifest.json', '-sigfile', 'signature'];
  const named = files.map((word) => (word.startsWith('-') ? word : join(folder, word)));
  const { stdout } = await run('openssl', ['pkeyutl', '-verify', '-rawin', '-pubin', ...named]);
  t.regex(stdout, /Signature Verified Successfully/);
});

test('the text does not depend on the order of members', (t) => {
  const { format, image, ...rest } = manifest();
  const shuffled = { ...rest, tools: { e2fsprogs: '1.47.2', partclone: '0.3.36' }, image, format };
  t.is(manifestText(shuffled), manifestText(manifest()));
  t.true(manifestText(manifest()).endsWith('}\n'));
});

test('one changed byte, another key or a foreign signature is not trusted', (t) => {
  const signed = signManifest(manifestText(manifest()), privateKey);
  const other = generateKeyPairSync('ed25519');
  const text = signed.manifest.replace('"version": 3', '"version": 4');
  t.throws(() => verifyManifest({ ...signed, manifest: text }, trusted), { code: 'IMAGE_UNTRUSTED' });
  t.throws(() => verifyManifest({ ...signed, manifest: `${signed.manifest} ` }, trusted), {
    code: 'IMAGE_UNTRUSTED',
  });
  t.throws(() => verifyManifest({ ...signed, signature: '' }, trusted), { code: 'IMAGE_UNTRUSTED' });
  const foreign = signManifest(signed.manifest, other.privateKey);
  t.throws(() => verifyManifest(foreign, trusted), { code: 'IMAGE_UNTRUSTED' });
  t.throws(() => verifyManifest({ ...foreign, keyId: signed.keyId }, trusted), { code: 'IMAGE_UNTRUSTED' });
});

test('a public key that is none, or of another kind, is not trusted', (t) => {
  const signed = signManifest(manifestText(manifest()), privateKey);
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({
    type: 'spki',
    format: 'der',
  });
  for (const key of [rsa, Buffer.from('nonsense')]) {
    t.throws(() => verifyManifest({ ...signed, keyId: keyId(key) }, key.toString('base64')), {
      code: 'IMAGE_UNTRUSTED',
    });
  }
});

test('the signature is checked before anything is parsed', (t) => {
  const signed = signManifest('not json', privateKey);
  t.throws(() => verifyManifest({ ...signed, manifest: 'neither' }, trusted), { code: 'IMAGE_UNTRUSTED' });
  t.throws(() => verifyManifest(signed, trusted), { code: 'IMAGE_INVALID' });
});

const range = (start: number, size: number) => ({ start, size });
const damagedAt = (...places: [number, number][]): Manifest =>
  changed((disk) => (first(disk).damaged = places.map(([start, size]) => range(start, size))));
const anew = { method: 'recreate', index: null, map: null } as const;

type Volume = Manifest['disks'][0]['partitions'][0]['contains'][0];
const volume = (more: Partial<Volume> = {}): Volume => ({
  ...{ kind: 'lvm', name: 'vg/root', uuid: 'one', size: 4 * MIB, role: 'os' },
  ...{ filesystem: null, method: 'used', reason: '' },
  ...more,
});
const luks = (more: Partial<Volume> = {}): Volume => volume({ kind: 'luks', name: 'one', ...more });
const holding = (contains: Volume[], type = 'LVM2_member'): Manifest =>
  changed((disk) => {
    Object.assign(first(disk), { contains });
    Object.assign(first(disk).filesystem ?? {}, { type });
  });

test('damage and volumes that can be are taken', (t) => {
  for (const good of [
    damagedAt([0, 512], [512, 1024], [10 * MIB - 512, 512]),
    holding([volume(), volume({ name: 'vg/a+b_c.d-e', uuid: 'two', size: 400 * MIB })]),
    holding([luks(), volume({ uuid: 'two' })], 'crypto_LUKS'),
  ]) {
    t.deepEqual(JSON.parse(manifestText(good)), good);
  }
});

const contradictions: [string, Manifest][] = [
  ['a partition that ends outside its disk', changed((disk) => (disk.size = 20 * MIB))],
  ['partitions that overlap', changed((disk) => (first(disk).size += 512))],
  ['a partition over the boot area', changed((disk) => (first(disk).start = 0))],
  ['a number twice', changed((disk) => Object.assign(first(disk), partition(2, MIB, MIB)))],
  [
    'an index named after another partition',
    changed((disk) => Object.assign(first(disk).index ?? {}, { name: 'p9.caibx' })),
  ],
  [
    'a chunk count that its size does not make',
    changed((disk) => Object.assign(first(disk).index ?? {}, { chunks: 9 })),
  ],
  ['no map', changed((disk) => (first(disk).map = null))],
  ['files of a partition that is made anew', changed((disk) => (first(disk).method = 'recreate'))],
  ['a partition off the sectors', changed((disk) => (first(disk).size -= 1))],
  ['an unknown member', changed((_, whole) => Object.assign(whole, { extra: 1 }))],
  ['a disk out of order', changed((disk) => (disk.name = 'd2'))],
  ['damage beyond the partition', damagedAt([9 * MIB, 2 * MIB])],
  ['damage off the sectors', damagedAt([100, 512])],
  ['damage of nothing', damagedAt([512, 0])],
  ['damage that overlaps', damagedAt([0, 1024], [512, 512])],
  ['damage out of order', damagedAt([4096, 512], [0, 512])],
  [
    'damage of what is made anew',
    changed((disk) => Object.assign(first(disk), { ...anew, damaged: [range(0, 512)] })),
  ],
  ['a volume in a plain filesystem', changed((disk) => first(disk).contains.push(volume()))],
  ['a volume whose name is an option', holding([volume({ name: '-y/root' })])],
  ['a volume twice', holding([volume(), volume({ name: 'vg/other' })])],
  ['a volume without size', holding([volume({ size: 0 })])],
  ['a volume that is made anew', holding([volume({ method: 'recreate' })])],
  ['LUKS that holds more than itself', holding([luks({ size: 10 * MIB })], 'crypto_LUKS')],
  ['LUKS without its clear side', holding([volume()], 'crypto_LUKS')],
  ['a boot area of any size', changed((disk) => Object.assign(disk.bootArea ?? {}, { size: MIB + 1 }))],
  ['a version made from itself', changed((_, whole) => (whole.derivedFrom = 3))],
  ['chunks off the sectors', changed((_, whole) => (whole.chunkSize = 65_537))],
  ['a path for a file name', changed((disk) => Object.assign(first(disk).map ?? {}, { name: '../p1.map' }))],
];
for (const [what, contradictory] of contradictions) {
  test(`a manifest with ${what} is refused, signed or not`, (t) => {
    const signed = signManifest(JSON.stringify(contradictory), privateKey);
    t.throws(() => verifyManifest(signed, trusted), { code: 'IMAGE_INVALID' });
    t.throws(() => manifestText(contradictory), { code: 'IMAGE_INVALID' });
  });
}
