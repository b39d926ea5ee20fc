import { ImagingError } from '../errors.ts';

/** A partition's index: which chunk lies where on the grid. */
export interface ChunkIndex {
  /** bytes; every chunk has this size, the last one may be shorter */
  chunkSize: number;
  /** bytes of the whole partition */
  size: number;
  /** SHA-256 of each chunk, lower-case hex, in order */
  ids: string[];
}

// casync 2, src/caformat.h
const INDEX_TYPE = 0x96824d9c7b129ff9n;
const TABLE_TYPE = 0xe75b9e112f17417dn;
const TABLE_TAIL_MARKER = 0x4b4f050e5549ecd1n;
const UNKNOWN_SIZE = 0xffffffffffffffffn;
const INDEX_BYTES = 48;
const TABLE_HEADER_BYTES = 16;
const ITEM_BYTES = 40;
const TAIL_BYTES = 40;

const MIN_CHUNK = 4096;
const MAX_CHUNK = 16 * 1024 * 1024;
/** 16 TiB in chunks of 1 MiB; 640 MiB of index, a limit and not a plan */
export const MAX_CHUNKS = 16 * 1024 * 1024;

/**
 * Write an index as casync's `.caibx`: minimum, average and maximum chunk size equal, ids are SHA-256 (the
 * feature flag for SHA-512/256 is off).
 *
 * @throws ImagingError IMAGE_INVALID: size, chunk size and number of ids do not fit together
 */
export const encodeCaibx = ({ chunkSize, size, ids }: ChunkIndex): Uint8Array => {
  checkGrid(chunkSize, size, ids.length);
  const tableBytes = TABLE_HEADER_BYTES + ids.length * ITEM_BYTES + TAIL_BYTES;
  const bytes = Buffer.alloc(INDEX_BYTES + tableBytes);
  let at = 0;
  const put = (value: number | bigint): void => {
    at = bytes.writeBigUInt64LE(BigInt(value), at);
  };
  // header: size, type, feature flags, minimum, average, maximum
  for (const value of [INDEX_BYTES, INDEX_TYPE, 0, chunkSize, chunkSize, chunkSize]) put(value);
  for (const value of [UNKNOWN_SIZE, TABLE_TYPE]) put(value);
  // plain numbers: two million BigInts are garbage that a machine with 1 GiB feels
  for (let number = 0; number < ids.length; number += 1) {
    const id = ids[number] ?? '';
    at = writeSafeInteger(bytes, Math.min(size, (number + 1) * chunkSize), at);
    const written = bytes.write(id, at, 'hex');
    if (written !== 32 || id.length !== 64) throw invalid(`chunk ${number} has no SHA-256 for an id`);
    at += 32;
  }
  for (const value of [0, 0, INDEX_BYTES, tableBytes, TABLE_TAIL_MARKER]) put(value);
  return bytes;
};

/**
 * Read an index written by encodeCaibx, or by casync or desync with a fixed grid and SHA-256. Strict: every
 * field is checked, and nothing larger than the input is allocated.
 *
 * @throws ImagingError IMAGE_INVALID
 */
export const decodeCaibx = (input: Uint8Array): ChunkIndex => {
  const bytes = Buffer.from(input.buffer, input.byteOffset, input.byteLength);
  const count = (bytes.length - INDEX_BYTES - TABLE_HEADER_BYTES - TAIL_BYTES) / ITEM_BYTES;
  if (!Number.isInteger(count) || count < 1) throw invalid(`${bytes.length} bytes cannot hold a table`);
  if (count > MAX_CHUNKS) throw invalid(`${count} chunks, at most ${MAX_CHUNKS} are read`);
  let at = 0;
  const expect = (value: number | bigint, what: string): void => {
    if (bytes.readBigUInt64LE(at) !== BigInt(value)) throw invalid(`${what} is wrong`);
    at += 8;
  };
  expect(INDEX_BYTES, 'header size');
  expect(INDEX_TYPE, 'magic number');
  at += 8; // feature flags are checked below, with the one bit that matters
  if ((bytes.readBigUInt64LE(16) & SHA512_256) !== 0n) throw invalid('its ids are not SHA-256');
  const chunkSize = Number(bytes.readBigUInt64LE(at));
  for (const what of ['minimum', 'average', 'maximum']) expect(BigInt(chunkSize), `${what} chunk size`);
  expect(UNKNOWN_SIZE, 'table size');
  expect(TABLE_TYPE, 'table magic number');
  const size = Number(bytes.readBigUInt64LE(at + (count - 1) * ITEM_BYTES));
  checkGrid(chunkSize, size, count);
  const ids = new Array<string>(count);
  let previous = '';
  for (let number = 0; number < count; number += 1) {
    if (!isSafeInteger(bytes, Math.min(size, (number + 1) * chunkSize), at)) {
      throw invalid(`end of chunk ${number} is wrong`);
    }
    at += 8;
    if (number > 0 && bytes.compare(bytes, at - ITEM_BYTES, at - ITEM_BYTES + 32, at, at + 32) === 0) {
      // free space is one long run of the same id: share the string
      ids[number] = previous;
      at += 32;
      continue;
    }
    const id = bytes.toString('hex', at, at + 32);
    previous = id;
    ids[number] = id;
    at += 32;
  }
  for (const value of [0, 0, INDEX_BYTES, bytes.length - INDEX_BYTES]) expect(value, 'table tail');
  expect(TABLE_TAIL_MARKER, 'tail marker');
  return { chunkSize, size, ids };
};

const writeSafeInteger = (bytes: Buffer, value: number, at: number): number =>
  bytes.writeUInt32LE(Math.floor(value / 2 ** 32), bytes.writeUInt32LE(value % 2 ** 32, at));

const isSafeInteger = (bytes: Buffer, value: number, at: number): boolean =>
  bytes.readUInt32LE(at) === value % 2 ** 32 && bytes.readUInt32LE(at + 4) === Math.floor(value / 2 ** 32);

/** CA_FORMAT_SHA512_256 */
const SHA512_256 = 0x2000000000000000n;

const checkGrid = (chunkSize: number, size: number, count: number): void => {
  if (!Number.isSafeInteger(chunkSize) || chunkSize < MIN_CHUNK || chunkSize > MAX_CHUNK) {
    throw invalid(`chunk size ${chunkSize} is not within ${MIN_CHUNK} and ${MAX_CHUNK}`);
  }
  if (!Number.isSafeInteger(size) || size < 1) throw invalid(`size ${size} is not a size`);
  if (Math.ceil(size / chunkSize) !== count) {
    throw invalid(`${count} chunks of ${chunkSize} bytes do not make ${size} bytes`);
  }
};

const invalid = (reason: string): ImagingError =>
  new ImagingError('IMAGE_INVALID', `Cannot use the chunk index: ${reason}`);
