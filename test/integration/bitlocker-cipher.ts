import { createCipheriv, randomBytes } from 'node:crypto';

/** As the metadata names it: AES-CBC with and without diffuser, AES-XTS; 128 bits. */
export type EncryptionMethod = 0x8000 | 0x8002 | 0x8004;

export interface SectorCipher {
  /** as they stand in the metadata */
  keys: Buffer;
  /** Encrypt a sector that lies at this byte of the volume. */
  cipher: (sector: Buffer, at: number) => Buffer;
}

/** A cipher with random keys. */
export const sectorCipher = (method: EncryptionMethod): SectorCipher => {
  if (method === 0x8004) {
    const keys = randomBytes(32);
    return { keys, cipher: (sector, at) => encrypt('aes-128-xts', keys, number16(at / 512), sector) };
  }
  const key = randomBytes(16);
  const cbc = (sector: Buffer, at: number): Buffer =>
    encrypt('aes-128-cbc', key, block(key, number16(at)), sector);
  if (method === 0x8002) return { keys: key, cipher: cbc };
  const tweak = randomBytes(16);
  const unused = Buffer.alloc(16);
  return {
    keys: Buffer.concat([key, unused, tweak, unused]),
    cipher: (sector, at) => cbc(diffuse(sector, sectorKey(tweak, at)), at),
  };
};

const encrypt = (name: string, key: Buffer, iv: Buffer | null, bytes: Buffer): Buffer => {
  const cipher = createCipheriv(name, key, iv).setAutoPadding(false);
  return Buffer.concat([cipher.update(bytes), cipher.final()]);
};

const block = (key: Buffer, bytes: Buffer): Buffer => encrypt('aes-128-ecb', key, null, bytes);

const number16 = (value: number): Buffer => {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};

const sectorKey = (tweak: Buffer, at: number): Buffer => {
  const marked = number16(at);
  marked[15] = 0x80;
  return Buffer.concat([block(tweak, number16(at)), block(tweak, marked)]);
};

/**
 * The Elephant diffuser, both halves, in the direction of encryption (N. Ferguson, "AES-CBC + Elephant diffuser",
 * 2006, section 4: that direction is the published loops backwards, with minus for plus).
 */
const diffuse = (sector: Buffer, key: Buffer): Buffer => {
  const words = new Uint32Array(sector.length / 4);
  for (const at of words.keys()) words[at] = sector.readUInt32LE(at * 4) ^ key.readUInt32LE((at * 4) % 32);
  half(words, { cycles: 5, turns: [9, 0, 13, 0], step: -1 });
  half(words, { cycles: 3, turns: [0, 10, 0, 25], step: 1 });
  const bytes = Buffer.alloc(sector.length);
  for (const [at, word] of words.entries()) bytes.writeUInt32LE(word, at * 4);
  return bytes;
};

const half = (
  words: Uint32Array,
  { cycles, turns, step }: { cycles: number; turns: readonly number[]; step: 1 | -1 },
): void => {
  const count = words.length;
  const word = (at: number): number => words[(at + count) % count] ?? 0;
  for (let round = cycles * count - 1; round >= 0; round--) {
    const at = round % count;
    const turn = turns[at % 4] ?? 0;
    const far = word(at + 5 * step);
    const turned = turn === 0 ? far : (far << turn) | (far >>> (32 - turn));
    words[at] = word(at) - ((word(at + 2 * step) ^ turned) >>> 0);
  }
};
