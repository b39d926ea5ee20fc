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

/** The disk in words that a person can find it by: `sda (ST2000, serial Z1, 2000.4 GB)`. */
export const wordsOf = ({
  name,
  model,
  serial,
  size,
}: Pick<Disk, 'name' | 'model' | 'serial' | 'size'>): string =>
  `${name} (${[model, serial ? `serial ${serial}` : 'no serial', `${(size / 1e9).toFixed(1)} GB`].filter(Boolean).join(', ')})`;

/**
 * Bytes that were written to this disk or discarded on it since boot: fields 7 and 14 of its `stat`, in
 * units of 512 bytes (Documentation/block/stat.rst). Operations are no measure: an fsync of a tool that only
 * read is a flush, which the kernel counts as a write of nothing (7 of them in a capture under Linux 6.12).
 */
export const bytesWrittenTo = async (disk: Disk): Promise<number> => {
  const fields = (await readFile(`/sys/block/${basename(disk.path)}/stat`, 'utf8')).trim().split(/\s+/);
  return (Number(fields[6]) + Number(fields[13])) * 512;
};

export const sha256 = (bytes: Uint8Array | string): string =>
  createHash('sha256').update(bytes).digest('hex');

export const imageFile = (name: string, bytes: Uint8Array): ImageFile => ({
  name,
  size: bytes.length,
  sha256: sha256(bytes),
});
