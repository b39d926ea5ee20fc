import { utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../agent/process/run.ts';
import { EPOCH } from './debian.ts';

/**
 * Some paths of a folder as a cpio archive (newc, as the kernel unpacks), the same bytes for the same files.
 * Several archives may follow each other in one file: the kernel reads on after zero bytes.
 *
 * @param paths below `folder`, folders before what lies in them
 */
export const makeCpio = async (folder: string, paths: readonly string[], file: string): Promise<void> => {
  for (const path of paths) await utimes(join(folder, path), EPOCH, EPOCH);
  await run(
    'cpio',
    [
      '--create',
      '--format=newc',
      '--reproducible',
      '--owner=0:0',
      '--quiet',
      `--directory=${folder}`,
      `--file=${file}`,
    ],
    { input: `${paths.join('\n')}\n` },
  );
};
