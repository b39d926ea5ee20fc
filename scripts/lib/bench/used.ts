import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Extent } from '../../../agent/image/extent.ts';
import { run } from '../../../agent/process/run.ts';
import { type BenchFilesystem, partcloneOf } from './peer.ts';

/** What partclone says that a filesystem uses. Part of a capture's time, as it is of partclone's own. */
export const extentsFromMap = async (
  filesystem: BenchFilesystem,
  device: string,
  folder: string,
): Promise<Extent[]> => {
  const map = join(folder, 'used.map');
  await rm(map, { force: true });
  await run(partcloneOf[filesystem], ['-D', '-s', device, '-o', map, '-L', `${map}.log`, '-f', '1', '-q']);
  return (await readFile(map, 'utf8')).split('\n').flatMap((line) => {
    const [, offset, length] = /^(0x[0-9a-fA-F]+)\s+(0x[0-9a-fA-F]+)\s+\+$/.exec(line) ?? [];
    return offset && length ? [{ offset: Number(offset), length: Number(length) }] : [];
  });
};
