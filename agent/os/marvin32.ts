/**
 * Marvin32 of Microsoft's SymCrypt: a seed of 64 bits, a hash of 64 bits, low half first. The registry's logs carry
 * it against torn writes; it proves nothing against anybody who wants to deceive. Pure.
 */
export const marvin32 = (bytes: Uint8Array, seed: bigint): bigint => {
  let low = Number(seed & 0xffffffffn) | 0;
  let high = Number(seed >> 32n) | 0;
  const mix = (word: number): void => {
    low = (low + word) | 0;
    high ^= low;
    low = (rotated(low, 20) + high) | 0;
    high = rotated(high, 9) ^ low;
    low = (rotated(low, 27) + high) | 0;
    high = rotated(high, 19);
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const whole = bytes.length & ~3;
  for (let offset = 0; offset < whole; offset += 4) mix(view.getUint32(offset, true));
  // what is left, a byte 0x80, zeros
  let rest = 0x80;
  for (let offset = bytes.length - 1; offset >= whole; offset--) rest = (rest << 8) | (bytes[offset] ?? 0);
  mix(rest);
  mix(0);
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
};

const rotated = (word: number, by: number): number => (word << by) | (word >>> (32 - by));
