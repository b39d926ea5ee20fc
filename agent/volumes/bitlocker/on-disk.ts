import { crc32 } from 'node:zlib';

/*
 * BitLocker of Windows 7 and later as it lies on the disk. All numbers are little-endian. Sources: libbde's
 * "BitLocker Drive Encryption (BDE) format", dislocker's src/metadata, cryptsetup's lib/bitlk.
 */

/** A key in AES-CCM under another key. */
export interface SealedKey {
  nonce: Buffer;
  tag: Buffer;
  data: Buffer;
}

/** One way to the volume's master key. */
export interface Protector {
  kind: ProtectorKind;
  sealed: SealedKey | null;
  /** of a clear key alone: what opens `sealed` */
  key: Buffer | null;
  /** of what a person types */
  salt: Buffer | null;
}

export type ProtectorKind = (typeof protectorKinds)[keyof typeof protectorKinds] | 'unknown';

const protectorKinds = {
  0: 'clear key',
  256: 'TPM',
  512: 'startup key',
  1280: 'TPM and PIN',
  2048: 'recovery password',
  4096: 'smart card',
  8192: 'password',
} as const;

export interface BitLockerVolume {
  /** encryption is by sectors of this many bytes */
  sectorSize: 512 | 4096;
  /** encrypted from the first byte on, bytes */
  encryptedBytes: number;
  /** where the three copies of the metadata begin, bytes */
  metadata: number[];
  /** where the first bytes of the clear volume lie, encrypted like all others there */
  header: { offset: number; length: number };
  /** of the metadata: 0x8004 is AES-XTS with 128 bits */
  encryption: number;
  protectors: Protector[];
  volumeKey: SealedKey | null;
}

/** bytes of each copy of the metadata, reserved in the volume */
export const METADATA_SIZE = 64 * 1024;

const SIGNATURE = '-FVE-FS-';
const WINDOWS_7 = '\xeb\x58\x90';
const WINDOWS_VISTA = '\xeb\x52\x90';
const TO_GO = 'MSWIN4.1';
const FULLY_ENCRYPTED = '3bd66749292ed84a8399f6a339e3d001';
const ENCRYPTED_ON_WRITE = '3b4da89280dd0e4d9e4eb1e3284eaed8';

/**
 * Where the copies of the metadata are, as the volume's first sector says; or why it cannot be read further, to
 * go on after "it is encrypted with BitLocker, and".
 */
export const parseBootSector = (sector: Buffer): { sectorSize: 512 | 4096; metadata: number[] } | string => {
  const jump = sector.toString('latin1', 0, 3);
  const signature = sector.toString('latin1', 3, 11);
  if (signature === TO_GO) return 'it is BitLocker To Go with a part for older systems in FAT';
  if (jump === WINDOWS_VISTA) return 'its format is that of Windows Vista';
  if (jump !== WINDOWS_7 || signature !== SIGNATURE) return 'its first sector is none that is known';
  const guid = sector.toString('hex', 160, 176);
  if (guid === ENCRYPTED_ON_WRITE) return 'it is encrypted as it is written to, not as a whole';
  if (guid !== FULLY_ENCRYPTED) return 'its kind of encryption is not known';
  const sectorSize = sector.readUInt16LE(11) || 512;
  if (sectorSize !== 512 && sectorSize !== 4096) return `its sectors have ${sectorSize} bytes`;
  return { sectorSize, metadata: [176, 184, 192].map((at) => numberAt(sector, at)) };
};

const METADATA_HEADERS = 64 + 48;
const STATE_ENCRYPTED = 4;
/** state_types of dislocker's metadata.priv.h */
const states: Readonly<Record<number, string>> = {
  1: 'it is about to be encrypted',
  2: 'it is being encrypted or decrypted',
  3: 'it is encrypted as it is written to, not as a whole',
  5: 'its encryption or decryption is paused before its end',
};

/**
 * One copy of the metadata, with what follows it; null where it is damaged, a text as of parseBootSector where it
 * is not one of a whole volume.
 *
 * @param block METADATA_SIZE bytes from the copy's first
 */
export const parseMetadata = (
  block: Buffer,
  { sectorSize, metadata }: { sectorSize: 512 | 4096; metadata: readonly number[] },
): BitLockerVolume | string | null => {
  try {
    if (block.toString('latin1', 0, 8) !== SIGNATURE) return null;
    const version = block.readUInt16LE(10);
    if (version !== 2) return `its metadata is of version ${version}`;
    const length = block.readUInt16LE(8) * 16;
    // behind it: size, version, checksum
    if (crc32(block.subarray(0, length)) !== block.readUInt32LE(length + 4)) return null;
    const places = [32, 40, 48].map((at) => numberAt(block, at));
    if (places.some((place, at) => place !== metadata[at])) return null;
    const [now, next] = [block.readUInt16LE(12), block.readUInt16LE(14)];
    if (now !== STATE_ENCRYPTED) return states[now] ?? `its state ${now} is not known`;
    if (next !== STATE_ENCRYPTED) return 'it is about to be decrypted';
    const end = 64 + block.readUInt32LE(64);
    if (end > length || end < METADATA_HEADERS) return null;
    const entries = entriesOf(block.subarray(METADATA_HEADERS, end));
    return {
      sectorSize,
      metadata: places,
      encryptedBytes: numberAt(block, 16),
      encryption: block.readUInt16LE(100),
      header: headerOf(entries) ?? {
        offset: numberAt(block, 56),
        length: block.readUInt32LE(28) * sectorSize,
      },
      ...keysOf(entries),
    };
  } catch (error) {
    // a size that leads out of the block
    if (error instanceof RangeError) return null;
    throw error;
  }
};

const TYPE_MASTER_KEY = 2;
const TYPE_VOLUME_KEY = 3;
const TYPE_HEADER = 15;
const VALUE_KEY = 1;
const VALUE_STRETCHED = 3;
const VALUE_SEALED = 5;

/** Its length has been there since Windows 8; before, only the number of sectors in front of the entries. */
const headerOf = (entries: readonly Entry[]): BitLockerVolume['header'] | null => {
  const data = entries.find(({ type }) => type === TYPE_HEADER)?.data;
  return data && data.length >= 16 ? { offset: numberAt(data, 0), length: numberAt(data, 8) } : null;
};

const keysOf = (entries: readonly Entry[]): Pick<BitLockerVolume, 'protectors' | 'volumeKey'> => {
  const volumeKey = entries.find(({ type, value }) => type === TYPE_VOLUME_KEY && value === VALUE_SEALED);
  return {
    protectors: entries.filter(({ type }) => type === TYPE_MASTER_KEY).map(({ data }) => protectorOf(data)),
    volumeKey: volumeKey ? sealedKey(volumeKey.data) : null,
  };
};

/** GUID, time of change and two more bytes come before its kind; properties follow. */
const protectorOf = (data: Buffer): Protector => {
  const properties = entriesOf(data.subarray(28));
  const sealed = properties.find(({ value }) => value === VALUE_SEALED);
  const key = properties.find(({ value }) => value === VALUE_KEY);
  const stretched = properties.find(({ value }) => value === VALUE_STRETCHED);
  const kinds: Readonly<Record<number, ProtectorKind>> = protectorKinds;
  return {
    kind: kinds[data.readUInt16LE(26)] ?? 'unknown',
    sealed: sealed ? sealedKey(sealed.data) : null,
    // a method of four bytes comes before both
    key: key ? key.data.subarray(4) : null,
    salt: stretched ? stretched.data.subarray(4, 20) : null,
  };
};

interface Entry {
  type: number;
  value: number;
  data: Buffer;
}

const ENTRY_HEADER = 8;

/** Size with this header, type, type of value, version; then the data. A size of 0 ends them. */
const entriesOf = (bytes: Buffer): Entry[] => {
  const entries: Entry[] = [];
  for (let at = 0; at + ENTRY_HEADER <= bytes.length; ) {
    const size = bytes.readUInt16LE(at);
    if (size === 0) break;
    if (size < ENTRY_HEADER || at + size > bytes.length) throw new RangeError('an entry beyond the end');
    entries.push({
      type: bytes.readUInt16LE(at + 2),
      value: bytes.readUInt16LE(at + 4),
      data: bytes.subarray(at + ENTRY_HEADER, at + size),
    });
    at += size;
  }
  return entries;
};

const sealedKey = (data: Buffer): SealedKey => {
  if (data.length <= 28) throw new RangeError('a key without bytes');
  return { nonce: data.subarray(0, 12), tag: data.subarray(12, 28), data: data.subarray(28) };
};

/** Inexact where no disk reaches. */
const numberAt = (bytes: Buffer, at: number): number => Number(bytes.readBigUInt64LE(at));
