import { close, constants, fdatasync, open, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { ImagingError, isErrno } from '../errors.ts';

/** An open disk, partition or image file. */
export interface Device {
  path: string;
  fd: number;
  /** reads and writes bypass the page cache; then `align` is the sector size */
  direct: boolean;
  /** reads and writes keep to multiples of this, bytes */
  align: number;
  /** Make everything written so far durable. */
  flush(): Promise<void>;
  /** Only when no worker uses the descriptor any more: its number will be somebody else's. */
  close(): Promise<void>;
}

export interface OpenOptions {
  write: boolean;
  /** what will be read or written: O_DIRECT needs all of it on sector boundaries */
  start: number;
  size: number;
  chunkSize: number;
}

const openAsync = promisify(open);
const closeAsync = promisify(close);
const fdatasyncAsync = promisify(fdatasync);

/**
 * Open a block device (O_DIRECT where alignment allows, and for writing O_EXCL: the kernel then refuses a
 * mounted or otherwise held disk), or a regular file (buffered). A read-only open can never write.
 *
 * @throws ImagingError DISK_NOT_FOUND, DISK_IN_USE, DISK_READ_FAILED or DISK_WRITE_FAILED (the range lies
 *   outside the device, the device is read-only)
 */
export const openDevice = async (path: string, options: OpenOptions): Promise<Device> => {
  const sector = await sectorSize(path, options);
  const { start, size, chunkSize } = options;
  const aligned = sector !== null && [start, size, chunkSize].every((value) => value % sector === 0);
  let flags = options.write ? constants.O_RDWR : constants.O_RDONLY;
  if (options.write && sector !== null) flags |= constants.O_EXCL;
  try {
    const fd = await openAsync(path, aligned ? flags | constants.O_DIRECT : flags);
    return {
      path,
      fd,
      direct: aligned,
      align: aligned ? sector : 1,
      flush: () => flush(path, fd),
      close: () => closeAsync(fd),
    };
  } catch (error) {
    if (isErrno(error, 'EBUSY')) {
      throw new ImagingError(
        'DISK_IN_USE',
        `Cannot open ${path}: mounted, or held by another part of the system`,
        {
          details: { device: path },
          cause: error,
        },
      );
    }
    throw openError(path, options, error);
  }
};

/** Logical sector size, and a check of the range; null for a regular file. */
const sectorSize = async (path: string, options: OpenOptions): Promise<number | null> => {
  let stats: ReturnType<typeof statSync>;
  try {
    stats = statSync(path);
  } catch (error) {
    throw openError(path, options, error);
  }
  if (!stats.isBlockDevice()) return null;
  const [major, minor] = [deviceMajor(stats.rdev), deviceMinor(stats.rdev)];
  const sysfs = `/sys/dev/block/${major}:${minor}`;
  // the file counts in 512 bytes on every disk
  const bytes = Number(await readFile(`${sysfs}/size`, 'utf8')) * 512;
  if (options.start + options.size > bytes) {
    throw openError(
      path,
      options,
      new Error(`it has ${bytes} bytes, ${options.start + options.size} are needed`),
    );
  }
  const queue = readFile(`${sysfs}/queue/logical_block_size`, 'utf8');
  // a partition has its queue in its disk's folder
  return Number(await queue.catch(() => readFile(`${sysfs}/../queue/logical_block_size`, 'utf8')));
};

// glibc's gnu_dev_major and gnu_dev_minor, for numbers that fit 32 bits
const deviceMajor = (rdev: number): number => (rdev >>> 8) & 0xfff;
const deviceMinor = (rdev: number): number => (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);

const flush = async (path: string, fd: number): Promise<void> => {
  try {
    await fdatasyncAsync(fd);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ImagingError('DISK_WRITE_FAILED', `Cannot flush ${path}: ${reason}`, {
      details: { device: path },
      cause: error,
    });
  }
};

const openError = (path: string, { write }: OpenOptions, error: unknown): ImagingError => {
  const reason = error instanceof Error ? error.message : String(error);
  const absent = isErrno(error, 'ENOENT') || isErrno(error, 'ENXIO') || isErrno(error, 'ENODEV');
  const code = absent ? 'DISK_NOT_FOUND' : write ? 'DISK_WRITE_FAILED' : 'DISK_READ_FAILED';
  return new ImagingError(code, `Cannot open ${path}: ${reason}`, {
    details: { device: path },
    cause: error,
  });
};
