import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../agent/process/run.ts';
import { bytesOf } from '../agent/image/helpers.ts';
import { MIB, sparseFile, withLoop } from './shrink-helpers.ts';

export interface BtrfsShape {
  name: string;
  mib: number;
  make?: string[];
  mount?: string;
  /** files and the size of each, written in this order */
  files?: [number, number][];
  /** of every so many files of the first kind, one stays */
  keepOneIn?: number;
  snapshot?: boolean;
}

const KIB = 1024;

/** Small and large, full and empty, many files and few, whole and in pieces, with mixed groups and with copies. */
export const btrfsShapes: readonly BtrfsShape[] = [
  { name: 'empty', mib: 128 },
  { name: 'empty, larger', mib: 2048 },
  { name: 'small, few files', mib: 280, files: [[10, 5 * MIB]] },
  { name: 'small, nearly full', mib: 300, files: [[20, 10 * MIB]] },
  { name: 'mixed, smallest', mib: 128, make: ['--mixed'], files: [[8, 5 * MIB]] },
  { name: 'mixed, few files', mib: 512, make: ['--mixed'], files: [[30, 5 * MIB]] },
  { name: 'mixed, many files', mib: 1024, make: ['--mixed'], files: [[4000, 6 * KIB]] },
  { name: 'many small files', mib: 512, files: [[6000, 3 * KIB]] },
  { name: 'very many small files', mib: 1024, files: [[30_000, 2 * KIB]] },
  { name: 'few large files', mib: 1024, files: [[12, 50 * MIB]] },
  { name: 'nearly full', mib: 1024, files: [[38, 20 * MIB]] },
  { name: 'in pieces', mib: 1024, files: [[1400, 512 * KIB]], keepOneIn: 7 },
  { name: 'was full once', mib: 2048, files: [[90, 20 * MIB]], keepOneIn: 10 },
  { name: 'large, half full', mib: 2048, files: [[60, 20 * MIB]] },
  { name: 'one copy of metadata', mib: 1024, make: ['-m', 'single'], files: [[2000, 60 * KIB]] },
  { name: 'two copies of data', mib: 1024, make: ['-d', 'dup'], files: [[20, 10 * MIB]] },
  {
    name: 'snapshot and large nodes',
    mib: 1024,
    make: ['-n', '65536'],
    files: [[5000, 20 * KIB]],
    snapshot: true,
  },
  {
    name: 'mixed, with copies',
    mib: 1500,
    make: ['--mixed', '-d', 'dup', '-m', 'dup'],
    files: [[90, 5 * MIB]],
    keepOneIn: 2,
  },
  { name: 'many tiny files, half of them gone', mib: 2048, files: [[60_000, 3000]], keepOneIn: 2 },
  { name: 'compressed', mib: 512, mount: 'compress-force=zstd', files: [[3000, 40 * KIB]] },
];

/** A filesystem of this shape in a file. */
export const makeShape = async (folder: string, shape: BtrfsShape): Promise<string> => {
  const { mib, make = [], mount, files = [], keepOneIn, snapshot } = shape;
  const file = await sparseFile(join(folder, 'shape.img'), mib * MIB);
  await run('mkfs.btrfs', ['-q', ...make, file]);
  const options = mount === undefined ? 'loop' : `loop,${mount}`;
  const fill = async (root: string): Promise<void> => {
    for (const [kind, [count, bytes]] of files.entries()) {
      for (let n = 0; n < count; n++) await writeFile(join(root, `file-${kind}-${n}`), bytesOf(n, bytes));
    }
    await run('sync', ['-f', root]);
    if (snapshot) await run('btrfs', ['subvolume', 'snapshot', '-r', root, join(root, 'before')]);
    if (keepOneIn === undefined) return;
    for (let n = 0; n < (files[0]?.[0] ?? 0); n++) {
      if (n % keepOneIn !== 0) await rm(join(root, `file-0-${n}`));
    }
    await run('sync', ['-f', root]);
  };
  await withLoop(file, folder, fill, options);
  return file;
};
