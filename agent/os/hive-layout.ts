/**
 * Base block and bins of a registry hive, after "Windows registry file format specification" (Maxim Suhanov).
 * Little-endian; offsets of bins and cells count from the first bin.
 */

/** file offset of the first bin; a primary file's base block fills all before it */
export const BINS = 4096;
/** of the base block, what its checksum covers; a log begins with a copy of as much */
export const BASE_BYTES = 512;
const CHECKSUM = 508;

/** Fields of a base block: offsets of 32-bit numbers. */
export const base = {
  primarySequence: 4,
  secondarySequence: 8,
  /** 64 bits; zero in hives of Windows 10 */
  lastWritten: 12,
  majorVersion: 20,
  minorVersion: 24,
  fileType: 28,
  fileFormat: 32,
  rootCell: 36,
  binsSize: 40,
  flags: 144,
} as const;

export const isBaseBlock = (bytes: Buffer): boolean =>
  bytes.length >= BASE_BYTES &&
  bytes.toString('latin1', 0, 4) === 'regf' &&
  bytes.readUInt32LE(base.majorVersion) === 1;

/** All 32-bit words before it, xor; 0 and -1 are not used. */
const checksumOf = (bytes: Buffer): number => {
  let sum = 0;
  for (let offset = 0; offset < CHECKSUM; offset += 4) sum = (sum ^ bytes.readUInt32LE(offset)) >>> 0;
  if (sum === 0xffffffff) return 0xfffffffe;
  return sum === 0 ? 1 : sum;
};

export const hasChecksum = (bytes: Buffer): boolean => bytes.readUInt32LE(CHECKSUM) === checksumOf(bytes);

export const setChecksum = (bytes: Buffer): void => {
  bytes.writeUInt32LE(checksumOf(bytes), CHECKSUM);
};

/** Windows replays the logs of a hive where the two sequence numbers differ or the checksum is wrong. */
export const isClean = (bytes: Buffer): boolean =>
  bytes.readUInt32LE(base.primarySequence) === bytes.readUInt32LE(base.secondarySequence) &&
  hasChecksum(bytes);

const BIN_HEAD = 32;

/** Why these bins are none: each where it says it is, filled with cells, the root key among them. Null: they are sound. */
export const binsProblem = (hive: Buffer): string | null => {
  const size = hive.readUInt32LE(base.binsSize);
  if (size === 0 || size % BINS !== 0 || BINS + size > hive.length) return `its bins have ${size} bytes`;
  const root = hive.readUInt32LE(base.rootCell);
  let hasRoot = false;
  for (let bin = 0; bin < size; ) {
    const at = BINS + bin;
    const length = hive.readUInt32LE(at + 8);
    const isBin = hive.toString('latin1', at, at + 4) === 'hbin' && hive.readUInt32LE(at + 4) === bin;
    if (!isBin || length === 0 || length % BINS !== 0 || bin + length > size)
      return `the bin at ${bin} is none`;
    for (let cell = bin + BIN_HEAD; cell < bin + length; ) {
      const signed = hive.readInt32LE(BINS + cell);
      const cellSize = Math.abs(signed);
      if (cellSize < 8 || cellSize % 8 !== 0 || cell + cellSize > bin + length)
        return `the cell at ${cell} is none`;
      const isKey = signed < 0 && hive.toString('latin1', BINS + cell + 4, BINS + cell + 6) === 'nk';
      if (cell === root && isKey) hasRoot = true;
      cell += cellSize;
    }
    bin += length;
  }
  return hasRoot ? null : 'it has no root key';
};
