import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode, ImagingError } from '../../agent/errors.ts';
import { fromWireError, type Manifest } from '../../agent/protocol/index.ts';
import type { ShrinkAnswer } from '../api.ts';
import type { CommandContext } from './command.ts';
import { decimal, printable } from './format.ts';
import { parseImage } from './image.ts';

export interface ShrinkCommand {
  /** as it was typed; default: the smallest sensible */
  to?: string | undefined;
  /** d1, d2 …: which disk of an image of several */
  disk?: string | undefined;
}

const POLL_MS = 500;

/** Make a version for smaller disks, or find the one that is there, and wait for it. */
export const shrinkImage = async (
  { api, print }: CommandContext,
  text: string,
  { to, disk }: ShrinkCommand,
  onChange: (line: string) => void,
): Promise<void> => {
  const { name, version } = parseImage(text);
  if (version === undefined) {
    throw new ImagingError('BAD_REQUEST', `Cannot shrink ${text}: say which version, ${name}@N`);
  }
  const body = {
    ...(to === undefined ? {} : { to: parseSize(to) }),
    ...(disk === undefined ? {} : { disk }),
  };
  const begin = () => api.post<ShrinkAnswer>(`/api/images/${name}/versions/${version}/shrink`, body);
  let job = await begin();
  let last = '';
  while (job.state === 'queued' || job.state === 'running') {
    const line = lineOf(job);
    if (line !== last) onChange(line);
    last = line;
    await sleep(POLL_MS);
    job = await api.get<ShrinkAnswer>(`/api/shrinks/${job.id}`).catch((error: unknown) => {
      if (hasCode(error, 'SERVER_UNREACHABLE')) return job;
      // a server that was restarted knows the job no more
      if (hasCode(error, 'NOT_FOUND')) return begin();
      throw error;
    });
  }
  if (job.error) throw fromWireError(job.error);
  const made = await api.get<Manifest>(`/api/images/${name}/versions/${job.result}`);
  print({ ...job, disks: made.disks.map(({ name: disk, size }) => ({ name: disk, size })) }, () => {
    const sizes = made.disks.map(({ size }) => `${decimal(size)} (${size} bytes)`).join(', ');
    return `${name}@${job.result}, made from ${name}@${job.version}, fits disks of ${sizes}`;
  });
};

const lineOf = ({ message, done, total, state }: ShrinkAnswer): string => {
  const share = state === 'running' && total > 0 ? `${Math.floor((done / total) * 100)} % ` : '';
  return `${share}${printable(message)}`;
};

const units: Record<string, number> = {
  ...{ B: 1, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 },
  ...{ KIB: 2 ** 10, MIB: 2 ** 20, GIB: 2 ** 30, TIB: 2 ** 40 },
};

/**
 * `10GB` (as disks are sold), `9.3GiB`, or bytes. "10G" would mean one thing to a disk's label and another to most
 * tools, so it is refused. @throws ImagingError BAD_REQUEST
 */
export const parseSize = (text: string): number => {
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim()) ?? [];
  const factor = units[unit.toUpperCase() || 'B'];
  const size = Math.floor(Number(number) * (factor ?? Number.NaN));
  if (Number.isSafeInteger(size) && size > 0) return size;
  throw new ImagingError(
    'BAD_REQUEST',
    `Cannot read the size ${text}: write 10GB, 9.3GiB or a number of bytes`,
  );
};
