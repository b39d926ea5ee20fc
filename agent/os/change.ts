import { createHash } from 'node:crypto';
import type { Evidence } from '../protocol/index.ts';
import { readInside, type Tree } from './tree.ts';

/** What was done inside one filesystem, and what must be found there afterwards. */
export interface Changes {
  evidence: Evidence[];
  warnings: string[];
  /** what the task asked for and could not be done, each with its reason */
  unmet: string[];
  files: ExpectedFile[];
}

export interface ExpectedFile {
  path: string;
  /** of the whole file; null: it is gone */
  sha256: string | null;
}

export const noChanges = (): Changes => ({ evidence: [], warnings: [], unmet: [], files: [] });

export const sha256Of = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Files that are not as they were written: looked at through another mount. */
export const differences = async (tree: Tree, files: readonly ExpectedFile[]): Promise<string[]> => {
  const wrong: string[] = [];
  for (const { path, sha256 } of files) {
    const bytes = await readInside(tree, path, MAX_FILE);
    if ((bytes === null ? null : sha256Of(bytes)) !== sha256) wrong.push(path);
  }
  return wrong;
};

/** nothing that is changed here is larger: a SYSTEM hive has 10 to 30 MB; its copies, as it lies there, closed and changed, must fit into RAM */
export const MAX_FILE = 128 * 1024 * 1024;
