import { hash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';

/** Eight numbers of six digits, each a multiple of 11, stand for 16 bytes. Null for a text that is none. */
export const recoveryDigest = (text: string): Buffer | null => {
  const digits = text.replaceAll(/[\s-]/g, '');
  if (!/^\d{48}$/.test(digits)) return null;
  const bytes = Buffer.alloc(16);
  for (let at = 0; at < 8; at++) {
    const number = Number(digits.slice(at * 6, at * 6 + 6));
    if (number % 11 !== 0 || number / 11 > 0xffff) return null;
    bytes.writeUInt16LE(number / 11, at * 2);
  }
  return sha256(bytes);
};

export const passwordDigest = (text: string): Buffer => sha256(sha256(Buffer.from(text, 'utf16le')));

const ROUNDS = 0x100000;
/** a heartbeat must not wait for more */
const ROUNDS_AT_ONCE = 0x2000;
const COUNT_AT = 80;

/**
 * The key of a digest: SHA-256 over last hash, digest, salt and a 64-bit count, 2^20 times (libbde, "Recovery key").
 * About a second of one core.
 */
export const stretch = async (digest: Buffer, salt: Buffer, signal: AbortSignal): Promise<Buffer> => {
  const state = Buffer.concat([Buffer.alloc(32), digest, salt, Buffer.alloc(8)]);
  for (let round = 0; round < ROUNDS; round++) {
    if (round % ROUNDS_AT_ONCE === 0) {
      await setImmediate();
      signal.throwIfAborted();
    }
    state.writeUInt32LE(round, COUNT_AT);
    sha256(state).copy(state);
  }
  return state.subarray(0, 32);
};

const sha256 = (bytes: Buffer): Buffer => hash('sha256', bytes, 'buffer');
