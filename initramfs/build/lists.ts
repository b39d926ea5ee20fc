import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** where lists, init and root/ lie in the source tree */
export const SOURCE = join(import.meta.dirname, '..');
/** the whole checkout */
export const PROJECT = join(SOURCE, '..');

/** The lines of a list below initramfs/ without comments and blank lines, sorted and once each. */
export const readList = async (path: string): Promise<string[]> =>
  parseList(await readFile(join(SOURCE, path), 'utf8'));

export const parseList = (text: string): string[] =>
  [
    ...new Set(
      text
        .split('\n')
        .map((line) => line.replace(/(^|\s)#.*$/, '').trim())
        .filter((line) => line !== ''),
    ),
  ].sort();
