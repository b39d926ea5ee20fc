import { createCipheriv, hash, randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { type EncryptionMethod, sectorCipher } from './bitlocker-cipher.ts';
import type { NtfsImage } from './bitlocker-ntfs.ts';

/*
 * Nothing on Linux makes a BitLocker volume, so this does, from the format's descriptions (libbde's "BitLocker Drive
 * Encryption (BDE) format", and what dislocker and cryptsetup expect). bitlocker.test.ts has both of them judge it.
 */

export interface BitLockerRecipe {
  encryption: EncryptionMethod;
  /** suspended: the key lies beside the volume */
  clearKey?: boolean;
  /** eight groups of six digits, each a multiple of 11 */
  recoveryPassword?: string;
  password?: string;
  /** something that nothing here can open */
  tpm?: boolean;
  /** now and next: 4 is encrypted, 1 decrypted, 2 on the way */
  state?: [now: number, next: number];
  /** bytes, from the first; default: all */
  encryptedBytes?: number;
}

/** of libbde's documentation */
export const RECOVERY_PASSWORD = '471207-278498-422125-177177-561902-537405-468006-693451';
/** well formed, and opens nothing */
export const OTHER_RECOVERY_PASSWORD = '471207-278498-422125-177177-561902-537405-468006-693440';

const SECTOR = 512;
const METADATA_SIZE = 64 * 1024;
const GUID = Buffer.from('3bd66749292ed84a8399f6a339e3d001', 'hex');

export interface MadeVolume {
  volume: Buffer;
  /** of its sectors */
  keys: Buffer;
}

/** Encrypt an NTFS with places for BitLocker's metadata into a volume as Windows 7 and later make it. */
export const encryptVolume = async (ntfs: NtfsImage, recipe: BitLockerRecipe): Promise<MadeVolume> => {
  const clear = await readFile(ntfs.file);
  const { keys, cipher } = sectorCipher(recipe.encryption);
  const volume = Buffer.alloc(clear.length);
  const put = (from: number, to: number): void =>
    void cipher(clear.subarray(from, from + SECTOR), to).copy(volume, to);
  for (let at = ntfs.header.length; at < clear.length; at += SECTOR) put(at, at);
  for (let at = 0; at < ntfs.header.length; at += SECTOR) put(at, ntfs.header.offset + at);
  bootSector(ntfs).copy(volume);
  const metadata = metadataOf(ntfs, recipe, keys, clear.length);
  for (const place of ntfs.metadata) {
    volume.fill(0, place, place + METADATA_SIZE);
    metadata.copy(volume, place);
  }
  return { volume, keys };
};

const bootSector = ({ metadata }: NtfsImage): Buffer => {
  const sector = Buffer.alloc(SECTOR);
  sector.write('\xeb\x58\x90-FVE-FS-', 0, 'latin1');
  sector.writeUInt16LE(SECTOR, 11);
  sector.writeUInt8(8, 13);
  sector.writeUInt8(0xf8, 21);
  GUID.copy(sector, 160);
  for (const [at, place] of metadata.entries()) sector.writeBigUInt64LE(BigInt(place), 176 + at * 8);
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
};

const metadataOf = (ntfs: NtfsImage, recipe: BitLockerRecipe, keys: Buffer, size: number): Buffer => {
  const { encryption, state = [4, 4], encryptedBytes = size } = recipe;
  const master = randomBytes(32);
  const entries = Buffer.concat([
    ...protectorsOf(recipe, master),
    entry(3, 5, sealed(master, keyEntry(encryption, keys))),
    entry(15, 15, words64(ntfs.header.offset, ntfs.header.length)),
  ]);
  const length = Math.ceil((64 + 48 + entries.length) / 16) * 16;
  const block = Buffer.alloc(length);
  block.write('-FVE-FS-', 0, 'latin1');
  block.writeUInt16LE(length / 16, 8);
  block.writeUInt16LE(2, 10);
  block.writeUInt16LE(state[0], 12);
  block.writeUInt16LE(state[1], 14);
  block.writeBigUInt64LE(BigInt(encryptedBytes), 16);
  block.writeUInt32LE(ntfs.header.length / SECTOR, 28);
  words64(...ntfs.metadata, ntfs.header.offset).copy(block, 32);
  const total = 48 + entries.length;
  for (const [at, value] of [total, 1, 48, total].entries()) block.writeUInt32LE(value, 64 + at * 4);
  randomBytes(16).copy(block, 80);
  block.writeUInt32LE(7, 96);
  block.writeUInt16LE(encryption, 100);
  FILETIME.copy(block, 104);
  entries.copy(block, 112);
  return Buffer.concat([block, validationOf(block, master)]);
};

/** Behind the metadata: its CRC, and its SHA-256 under the master key. */
const validationOf = (block: Buffer, master: Buffer): Buffer => {
  const digest = hash('sha256', block, 'buffer');
  const inner = entry(0, 5, sealed(master, keyEntry(0x2005, digest)));
  const head = Buffer.alloc(8);
  head.writeUInt16LE(head.length + inner.length, 0);
  head.writeUInt16LE(1, 2);
  head.writeUInt32LE(crc32(block), 4);
  return Buffer.concat([head, inner]);
};

const protectorsOf = (recipe: BitLockerRecipe, master: Buffer): Buffer[] => {
  const { clearKey, recoveryPassword, password, tpm } = recipe;
  const inside = keyEntry(0x2003, master);
  const protectors: Buffer[] = [];
  const stretched = (kind: number, initial: Buffer): void => {
    const salt = randomBytes(16);
    const under = sealed(stretch(initial, salt), inside);
    const method = Buffer.from([0x00, 0x10, 0, 0]);
    protectors.push(protector(kind, [entry(0, 3, Buffer.concat([method, salt])), entry(0, 5, under)]));
  };
  if (tpm) protectors.push(protector(0x100, [entry(0, 6, randomBytes(200))]));
  if (recoveryPassword) stretched(0x800, sha256(recoveryBytes(recoveryPassword)));
  if (password) stretched(0x2000, sha256(sha256(Buffer.from(password, 'utf16le'))));
  if (clearKey) {
    const key = randomBytes(32);
    const open = Buffer.concat([Buffer.from([0x00, 0x20, 0, 0]), key]);
    protectors.push(protector(0, [entry(0, 1, open), entry(0, 5, sealed(key, inside))]));
  }
  return protectors;
};

const protector = (kind: number, properties: Buffer[]): Buffer => {
  const protection = Buffer.alloc(4);
  protection.writeUInt16LE(kind, 2);
  return entry(2, 8, Buffer.concat([randomBytes(16), FILETIME, protection, ...properties]));
};

/** The third of January 2024 in units of 100 ns from 1601. */
const FILETIME = Buffer.alloc(8);
FILETIME.writeBigUInt64LE(133487136000000000n);

const entry = (type: number, value: number, data: Buffer): Buffer => {
  const head = Buffer.alloc(8);
  for (const [at, word] of [8 + data.length, type, value, 1].entries()) head.writeUInt16LE(word, at * 2);
  return Buffer.concat([head, data]);
};

const keyEntry = (method: number, key: Buffer): Buffer => {
  const head = Buffer.alloc(4);
  head.writeUInt16LE(method, 0);
  return entry(0, 1, Buffer.concat([head, key]));
};

let counter = 1;

/** Nonce (time and counter), tag, AES-CCM. */
const sealed = (key: Buffer, inside: Buffer): Buffer => {
  const nonce = Buffer.concat([FILETIME, Buffer.alloc(4)]);
  nonce.writeUInt32LE(counter++, 8);
  const cipher = createCipheriv('aes-256-ccm', key, nonce, { authTagLength: 16 });
  const bytes = Buffer.concat([cipher.update(inside), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), bytes]);
};

const recoveryBytes = (password: string): Buffer => {
  const bytes = Buffer.alloc(16);
  for (const [at, group] of password.split('-').entries()) bytes.writeUInt16LE(Number(group) / 11, at * 2);
  return bytes;
};

const ROUNDS = 0x100000;

const stretch = (initial: Buffer, salt: Buffer): Buffer => {
  const state = Buffer.concat([Buffer.alloc(32), initial, salt, Buffer.alloc(8)]);
  for (let round = 0; round < ROUNDS; round++) {
    state.writeUInt32LE(round, 80);
    sha256(state).copy(state);
  }
  return state.subarray(0, 32);
};

const sha256 = (bytes: Buffer): Buffer => hash('sha256', bytes, 'buffer');

const words64 = (...words: number[]): Buffer => {
  const bytes = Buffer.alloc(words.length * 8);
  for (const [at, word] of words.entries()) bytes.writeBigUInt64LE(BigInt(word), at * 8);
  return bytes;
};
