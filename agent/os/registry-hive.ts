import type { FileHandle } from 'node:fs/promises';
import { ImagingError } from '../errors.ts';
import { BASE_BYTES, BINS, base, isBaseBlock, isClean } from './hive-layout.ts';

/**
 * Read a Windows registry hive at random places: bounded, whatever the file holds. Format: "Windows
 * registry file format specification" (Maxim Suhanov), versions 1.3 to 1.6. Offsets of cells count from
 * the first hive bin, byte 4096 of the file.
 */
export interface Hive {
  readonly file: FileHandle;
  /** file offset of the root key */
  readonly root: number;
  /** everything that was changed is in this file: nothing waits in its .LOG files */
  readonly clean: boolean;
}

export interface HiveValue {
  /** empty for the default value */
  name: string;
  type: number;
  data: Buffer;
}

export const REG_SZ = 1;
const REG_DWORD = 4;
const MAX_SUBKEYS = 100_000;
const MAX_VALUES = 4096;
/** above it a value's data is spread over several cells ("db"), which nothing that is read here is */
const MAX_DATA = 16_344;

/** @throws ImagingError TOOL_FAILED: no hive */
export const openHive = async (file: FileHandle): Promise<Hive> => {
  const head = await bytesAt(file, 0, BASE_BYTES);
  if (!isBaseBlock(head)) throw malformed('no hive');
  return { file, root: BINS + head.readUInt32LE(base.rootCell), clean: isClean(head) };
};

/**
 * All values of a key, in their order; null where there is no such key. Names have no regard to case.
 *
 * @throws ImagingError TOOL_FAILED: the hive is damaged
 */
export const readValues = async (hive: Hive, path: readonly string[]): Promise<HiveValue[] | null> => {
  let key = hive.root;
  for (const name of path) {
    const found = await findSubkey(hive, key, name.toUpperCase());
    if (found === null) return null;
    key = found;
  }
  const node = await nodeAt(hive, key);
  const count = node.readUInt32LE(36);
  if (count === 0) return [];
  if (count > MAX_VALUES) throw malformed(`${count} values`);
  const list = await cellAt(hive, node.readUInt32LE(40), count * 4);
  const values: HiveValue[] = [];
  for (let index = 0; index < count; index++) {
    values.push(await valueAt(hive, list.readUInt32LE(index * 4)));
  }
  return values;
};

/** A string value; null where there is none. */
export const textOf = (values: readonly HiveValue[] | null, name: string): string | null => {
  const value = find(values, name);
  if (!value || (value.type !== REG_SZ && value.type !== 2)) return null;
  return value.data.toString('utf16le').split('\0')[0] ?? '';
};

/** A REG_DWORD; null where there is none. */
export const numberOf = (values: readonly HiveValue[] | null, name: string): number | null => {
  const value = find(values, name);
  return value?.type === REG_DWORD && value.data.length === 4 ? value.data.readUInt32LE() : null;
};

const find = (values: readonly HiveValue[] | null, name: string): HiveValue | undefined =>
  values?.find((value) => value.name.toUpperCase() === name.toUpperCase());

const findSubkey = async (hive: Hive, key: number, name: string): Promise<number | null> => {
  const node = await nodeAt(hive, key);
  if (node.readUInt32LE(20) === 0) return null;
  for (const offset of await subkeysIn(hive, node.readUInt32LE(28), true)) {
    if (nameOf(await nodeAt(hive, BINS + offset)).toUpperCase() === name) return BINS + offset;
  }
  return null;
};

/** Offsets of subkeys: lists lf and lh (with hashes), li (without), ri (a list of lists). */
const subkeysIn = async (hive: Hive, list: number, mayNest: boolean): Promise<number[]> => {
  const head = await cellAt(hive, list, 4);
  const kind = head.toString('latin1', 0, 2);
  const count = head.readUInt16LE(2);
  const width = kind === 'lf' || kind === 'lh' ? 8 : 4;
  if (!['lf', 'lh', 'li', 'ri'].includes(kind) || (kind === 'ri' && !mayNest)) {
    throw malformed('a list of subkeys is none');
  }
  const body = await cellAt(hive, list, 4 + count * width);
  const offsets = Array.from({ length: count }, (_, index) => body.readUInt32LE(4 + index * width));
  if (kind !== 'ri') return offsets;
  const all: number[] = [];
  for (const offset of offsets) {
    for (const found of await subkeysIn(hive, offset, false)) all.push(found);
    if (all.length > MAX_SUBKEYS) throw malformed('too many subkeys');
  }
  return all;
};

const NODE_HEAD = 76;
const COMPRESSED_NAME = 0x20;

/** A key node with its name, cut to what it says of its own length. */
const nodeAt = async (hive: Hive, offset: number): Promise<Buffer> => {
  const head = await cellAt(hive, offset - BINS, NODE_HEAD);
  if (head.toString('latin1', 0, 2) !== 'nk') throw malformed('a key is none');
  return await cellAt(hive, offset - BINS, NODE_HEAD + head.readUInt16LE(72));
};

const nameOf = (node: Buffer): string =>
  node.toString(node.readUInt16LE(2) & COMPRESSED_NAME ? 'latin1' : 'utf16le', NODE_HEAD);

const VALUE_HEAD = 20;
const INLINE = 0x80000000;

const valueAt = async (hive: Hive, offset: number): Promise<HiveValue> => {
  const head = await cellAt(hive, offset, VALUE_HEAD);
  if (head.toString('latin1', 0, 2) !== 'vk') throw malformed('a value is none');
  const nameLength = head.readUInt16LE(2);
  const whole = await cellAt(hive, offset, VALUE_HEAD + nameLength);
  const name = whole.toString(head.readUInt16LE(16) & 1 ? 'latin1' : 'utf16le', VALUE_HEAD);
  const size = head.readUInt32LE(4);
  const type = head.readUInt32LE(12);
  if (size >= INLINE) {
    if (size - INLINE > 4) throw malformed('a value is too long for its place');
    return { name, type, data: head.subarray(8, 8 + size - INLINE) };
  }
  if (size > MAX_DATA) throw malformed(`a value of ${size} bytes`);
  return { name, type, data: size === 0 ? Buffer.alloc(0) : await cellAt(hive, head.readUInt32LE(8), size) };
};

/** The first `length` bytes of a cell that is in use: its size, negative, stands before it. */
const cellAt = async (hive: Hive, offset: number, length: number): Promise<Buffer> => {
  const cell = await bytesAt(hive.file, BINS + offset, 4 + length);
  if (-cell.readInt32LE(0) < 4 + length) throw malformed('a cell is too short');
  return cell.subarray(4);
};

const bytesAt = async (file: FileHandle, offset: number, length: number): Promise<Buffer> => {
  const bytes = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) throw malformed('it ends too early');
    done += bytesRead;
  }
  return bytes;
};

const malformed = (reason: string): ImagingError =>
  new ImagingError('TOOL_FAILED', `Cannot read the registry hive: ${reason}`);
