import { closeSync, constants, fsyncSync, mkdirSync, openSync, renameSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Flush each `from`, rename it to `to`, then flush the folders: each once, and `root` where a folder in it is
 * new. A file under its final name is whole even after a power cut. Synchronous, for a thread that may wait:
 * through promises the same calls cost three times the CPU (measured: 57 ms against 19 ms for 64 files).
 */
export const publishFiles = (files: readonly { from: string; to: string }[], root: string): void => {
  for (const { from } of files) sync(from);
  const folders = new Set(files.map(({ to }) => dirname(to)));
  let isNew = false;
  for (const folder of folders) isNew = mkdirSync(folder, { recursive: true }) !== undefined || isNew;
  for (const { from, to } of files) renameSync(from, to);
  for (const folder of folders) sync(folder);
  if (isNew) sync(root);
};

const sync = (path: string): void => {
  const fd = openSync(path, constants.O_RDONLY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
};
