import { readFileSync } from 'node:fs';
import { mkdtemp, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isErrno } from '../errors.ts';

/**
 * Which process made a thing that outlives it (a mapping, a mount, a loop device): its number and the time of its
 * start, since numbers come back. `1234.56789`.
 */
export type OwnerMark = string;

/** What an owner's mark looks like, for a name that carries one. */
export const MARK = String.raw`\d+\.\d+`;

/** In the environment of every tool that is run: whose it is. */
export const OWNER_VARIABLE = 'FOG_AGENT';

let own: OwnerMark | undefined;

export const ownMark = (): OwnerMark =>
  (own ??= `${process.pid}.${startOf(readFileSync('/proc/self/stat', 'utf8'))}`);

/** Whether the process that made a mark still runs. One that has ended and was not waited for does not. */
export const isAlive = async (mark: OwnerMark): Promise<boolean> => {
  const [pid, start] = mark.split('.');
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    return startOf(stat) === start && !/^[ZX]$/.test(fieldsOf(stat)[0] ?? '');
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ESRCH')) return false;
    throw error;
  }
};

/** proc_pid_stat(5), from field 3 on: the name in parentheses before it may hold anything. */
const fieldsOf = (stat: string): string[] => stat.slice(stat.lastIndexOf(')') + 2).split(' ');

/** field 22: ticks since boot */
const startOf = (stat: string): string | undefined => fieldsOf(stat)[19];

/** A new folder for temporary things, whose name says whose it is: `/tmp/mount-1234.56789-Ab3dEf`. */
export const ownFolder = async (kind: OwnFolderKind): Promise<string> =>
  await mkdtemp(join(tmpdir(), `${kind}-${ownMark()}-`));

export const ownFolderKinds = ['mount', 'snapshot', 'partclone', 'hive'] as const;
export type OwnFolderKind = (typeof ownFolderKinds)[number];
