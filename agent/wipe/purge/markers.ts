import { randomBytes, randomInt } from 'node:crypto';
import { read as readCallback, write as writeCallback } from 'node:fs';
import { promisify } from 'node:util';
import { ImagingError } from '../../errors.ts';
import { sharedMemory } from '../../image/arena.ts';
import { type Device, openDevice } from '../../image/device.ts';
import { fillPattern } from '../pattern.ts';

const readAsync = promisify(readCallback);
const writeAsync = promisify(writeCallback);

/** one piece that is looked at: a page, a sector of every disk */
const PIECE = 4096;
/** pieces spread over the disk, besides the first and the last */
const PLACES = 1000;

/** What lay on a disk before it erased itself, at places that nobody can guess. */
export interface Known {
  places: { offset: number; bytes: Buffer }[];
}

/**
 * Remember what lies at the first, the last and 1000 random places, and put random markers at half of them, so that there is something
 * to be erased on an empty disk too. The markers are seen on the disk before this returns.
 *
 * @throws ImagingError PURGE_FAILED (the disk does not keep what is written to it), DISK_READ_FAILED, DISK_WRITE_FAILED
 */
export const plantMarkers = async (path: string, size: number): Promise<Known> => {
  const key = randomBytes(32).toString('hex');
  const offsets = placesOf(size);
  await using stack = new AsyncDisposableStack();
  const device = await opened(stack, path, size, true);
  const buffer = pieceBuffer();
  for (const [number, offset] of offsets.entries()) {
    if (number % 2 === 1) continue;
    fillPattern(buffer, key, offset);
    await transfer(device, offset, (length) => writeAsync(device.fd, buffer, 0, length, offset), 'write');
  }
  await device.flush();
  const places: Known['places'] = [];
  const expected = Buffer.alloc(PIECE);
  for (const [number, offset] of offsets.entries()) {
    await readPiece(device, buffer, offset);
    if (number % 2 === 0) {
      fillPattern(expected, key, offset);
      if (Buffer.compare(buffer, expected) !== 0) {
        throw new ImagingError('PURGE_FAILED', `Cannot test ${path}: it does not keep a marker at ${offset}`);
      }
    }
    // what is the same byte throughout may be there again by right
    if (buffer.some((byte) => byte !== buffer[0])) places.push({ offset, bytes: Buffer.from(buffer) });
  }
  return { places };
};

/**
 * How many of these places still hold what they held.
 *
 * @throws ImagingError DISK_READ_FAILED
 */
export const survivors = async (path: string, size: number, { places }: Known): Promise<number> => {
  await using stack = new AsyncDisposableStack();
  const device = await opened(stack, path, size, false);
  const buffer = pieceBuffer();
  let count = 0;
  for (const { offset, bytes } of places) {
    await readPiece(device, buffer, offset);
    if (Buffer.compare(buffer, bytes) === 0) count += 1;
  }
  return count;
};

/** Sorted, all different. The last piece ends where the disk ends. */
const placesOf = (size: number): number[] => {
  const pieces = Math.floor(size / PIECE);
  const chosen = new Set([0, pieces - 1]);
  const wanted = Math.min(PLACES + 2, pieces);
  while (chosen.size < wanted) chosen.add(randomInt(pieces));
  return [...chosen].sort((a, b) => a - b).map((piece) => piece * PIECE);
};

/** O_DIRECT needs memory on a page boundary; not shared, because Buffer's own functions are used on it */
const pieceBuffer = (): Buffer => Buffer.from(sharedMemory(PIECE), 0, PIECE);

const opened = async (
  stack: AsyncDisposableStack,
  path: string,
  size: number,
  write: boolean,
): Promise<Device> => {
  const range = Math.floor(size / PIECE) * PIECE;
  const device = await openDevice(path, { write, start: 0, size: range, chunkSize: PIECE });
  stack.defer(() => device.close());
  return device;
};

const readPiece = (device: Device, buffer: Buffer, offset: number): Promise<void> =>
  transfer(device, offset, (length) => readAsync(device.fd, buffer, 0, length, offset), 'read');

const transfer = async (
  { path }: Device,
  offset: number,
  work: (length: number) => Promise<{ bytesRead?: number; bytesWritten?: number }>,
  what: 'read' | 'write',
): Promise<void> => {
  const code = what === 'read' ? 'DISK_READ_FAILED' : 'DISK_WRITE_FAILED';
  try {
    const { bytesRead, bytesWritten } = await work(PIECE);
    if ((bytesRead ?? bytesWritten) !== PIECE) throw new Error('not all of it');
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ImagingError(code, `Cannot ${what} a marker of ${path} at ${offset}: ${reason}`, { cause });
  }
};
