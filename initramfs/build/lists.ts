import { readdirSync, readFileSync } from 'node:fs';
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

// read when the program starts: what runs is what was hashed, even if somebody edits during a build
const sources = new Map(
  readdirSync(import.meta.dirname).map((name) => [
    name,
    readFileSync(join(import.meta.dirname, name), 'utf8'),
  ]),
);

/** Text of a file beside this one: a change of how a layer is made is a change of the layer. */
export const ownSource = (name: string): string => {
  const text = sources.get(name);
  if (text === undefined) throw new Error(`Cannot find initramfs/build/${name}`);
  return text;
};
