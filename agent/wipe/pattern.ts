import { createCipheriv } from 'node:crypto';

const CIPHER = 'aes-256-ctr';
/** AES's block: what the counter counts */
const CIPHER_BLOCK = 16;
/** Node's cipher returns a new buffer for every call: of this size they stay in the processor's cache */
const STEP = 64 * 1024;
const zeros = Buffer.alloc(STEP);

/**
 * Fill `target` with the part of a pass that begins `offset` bytes into the disk: AES-256 in counter mode over zeros with
 * the disk's first byte as the start, so that any part can be made again without the rest, by us and by anybody
 * who has the key (`openssl enc -aes-256-ctr -K <key> -iv 0`). A key of null is zeros.
 */
export const fillPattern = (target: Uint8Array, key: string | null, offset: number): void => {
  if (key === null) {
    target.fill(0);
    return;
  }
  const cipher = createCipheriv(CIPHER, Buffer.from(key, 'hex'), counterAt(offset));
  const skipped = offset % CIPHER_BLOCK;
  if (skipped > 0) cipher.update(zeros.subarray(0, skipped));
  for (let at = 0; at < target.length; at += STEP) {
    target.set(cipher.update(zeros.subarray(0, Math.min(STEP, target.length - at))), at);
  }
};

/** 128 bits, big-endian (NIST SP 800-38A, as OpenSSL counts). */
const counterAt = (offset: number): Buffer => {
  const counter = Buffer.alloc(CIPHER_BLOCK);
  counter.writeBigUInt64BE(BigInt(Math.floor(offset / CIPHER_BLOCK)), 8);
  return counter;
};
