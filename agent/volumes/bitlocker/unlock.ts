import { createDecipheriv } from 'node:crypto';
import type { BitLockerVolume, Protector, SealedKey } from './on-disk.ts';
import { passwordDigest, recoveryDigest, stretch } from './stretch.ts';

/** What dm-crypt decrypts the volume's sectors with. */
export interface VolumeKey {
  /** as dm-crypt calls it */
  cipher: string;
  key: Buffer;
}

/** By the metadata's `encryption` (libbde, "Encryption methods"; cryptsetup's names for dm-crypt). */
const ciphers: Readonly<Record<number, { name: string; keyBytes: number }>> = {
  32768: { name: 'aes-cbc-elephant', keyBytes: 32 },
  32769: { name: 'aes-cbc-elephant', keyBytes: 64 },
  32770: { name: 'aes-cbc-eboiv', keyBytes: 16 },
  32771: { name: 'aes-cbc-eboiv', keyBytes: 32 },
  32772: { name: 'aes-xts-plain64', keyBytes: 32 },
  32773: { name: 'aes-xts-plain64', keyBytes: 64 },
};

export const isKnownCipher = (encryption: number): boolean => encryption in ciphers;

/** The key where protection is suspended: what opens it lies in the clear beside it. Null elsewhere. */
export const suspendedKey = (volume: BitLockerVolume): VolumeKey | null => {
  for (const { kind, sealed, key } of volume.protectors) {
    if (kind !== 'clear key' || !sealed || !key) continue;
    const opened = volumeKeyBy(key, sealed, volume);
    if (opened) return opened;
  }
  return null;
};

/**
 * The key with the first of these recovery passwords and passwords that fits, null where none does. Takes seconds for
 * each: derivation is slow by design.
 */
export const unlockedKey = async (
  volume: BitLockerVolume,
  keys: readonly string[],
  signal: AbortSignal,
): Promise<VolumeKey | null> => {
  for (const text of keys) {
    for (const protector of volume.protectors) {
      const { sealed, salt } = protector;
      const digest = digestFor(protector, text);
      if (!digest || !sealed || !salt) continue;
      const opened = volumeKeyBy(await stretch(digest, salt, signal), sealed, volume);
      if (opened) return opened;
    }
  }
  return null;
};

const digestFor = ({ kind }: Protector, text: string): Buffer | null => {
  if (kind === 'recovery password') return recoveryDigest(text);
  return kind === 'password' ? passwordDigest(text) : null;
};

/** Two steps: this key opens the master key, and that one the volume's. Each has a tag that proves it. */
const volumeKeyBy = (
  key: Buffer,
  sealed: SealedKey,
  { volumeKey, encryption }: BitLockerVolume,
): VolumeKey | null => {
  const cipher = ciphers[encryption];
  const master = unseal(sealed, key);
  const opened = volumeKey && master ? unseal(volumeKey, master) : null;
  if (!cipher || !opened) return null;
  // with the diffuser and 128 bits, each of the two keys stands in 32 bytes
  const bytes =
    encryption === 0x8000 ? Buffer.concat([opened.subarray(0, 16), opened.subarray(32, 48)]) : opened;
  if (bytes.length < cipher.keyBytes) return null;
  return { cipher: cipher.name, key: bytes.subarray(0, cipher.keyBytes) };
};

const KEY_BYTES = 32;
/** size, version, type and method come before the key's bytes */
const KEY_HEADER = 12;

/** AES-CCM with a 256-bit key; null where the tag says that it is not this key. */
const unseal = ({ nonce, tag, data }: SealedKey, key: Buffer): Buffer | null => {
  if (key.length !== KEY_BYTES) return null;
  const decipher = createDecipheriv('aes-256-ccm', key, nonce, { authTagLength: tag.length });
  decipher.setAuthTag(tag);
  let opened: Buffer;
  try {
    opened = decipher.update(data);
    decipher.final();
  } catch {
    // Node has no other way to say that the tag does not fit
    return null;
  }
  return opened.length > KEY_HEADER && opened.readUInt16LE(0) === opened.length
    ? opened.subarray(KEY_HEADER)
    : null;
};
