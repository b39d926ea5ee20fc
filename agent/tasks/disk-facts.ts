import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import type { Disk } from '../disk/disk.ts';
import type { ImageFile, TaskResult } from '../protocol/index.ts';

/** The disk as results name it: by what is printed on it, not by its kernel name. */
export const identityOf = (disk: Disk): NonNullable<TaskResult['disk']> => ({
  serial: disk.serial ?? '',
  wwn: disk.wwn ?? '',
  size: disk.size,
});

/** Write operations that reached this disk since boot: fifth field of its `stat` (Documentation/block/stat.rst). */
export const writesTo = async (disk: Disk): Promise<number> => {
  const fields = (await readFile(`/sys/block/${basename(disk.path)}/stat`, 'utf8')).trim().split(/\s+/);
  return Number(fields[4]);
};

export const sha256 = (bytes: Uint8Array | string): string =>
  createHash('sha256').update(bytes).digest('hex');

export const imageFile = (name: string, bytes: Uint8Array): ImageFile => ({
  name,
  size: bytes.length,
  sha256: sha256(bytes),
});
