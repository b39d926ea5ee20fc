import type { TaskResult, WipeReport } from '../../agent/protocol/index.ts';
import type { TaskRow } from '../queue/task-row.ts';
import type { CertificateBody } from './certificate.ts';
import { verdictOf } from './verdict.ts';

type Conclusion = Pick<CertificateBody, 'title' | 'erased' | 'conclusion' | 'verdicts'>;

/** What a wipe that has ended amounts to. Pure. The task's end and every disk's own: only both together are an erasure. */
export const conclude = (
  task: TaskRow,
  { outcome, error }: TaskResult,
  { disks }: WipeReport,
): Conclusion => {
  const all = disks.map((disk) => ({
    ...{ name: disk.facts.name, serial: disk.facts.serial ?? null },
    ...verdictOf(task, disk),
  }));
  const meant = all.filter(({ verdict }) => verdict !== 'LEFT ALONE');
  const open = meant.filter(({ verdict }) => verdict !== 'ERASED');
  const erased = outcome === 'succeeded' && meant.length > 0 && open.length === 0;
  return {
    title: erased
      ? 'Certificate of erasure'
      : `Record of a ${outcomeWords[outcome]} wipe: no certificate of erasure`,
    erased,
    conclusion: erased ? erasedWords(meant) : openWords(meant, open, error),
    verdicts: all,
  };
};

/** of a wipe that is no erasure; one that succeeded all the same was a fast one */
const outcomeWords = { succeeded: 'fast', failed: 'failed', cancelled: 'cancelled' } as const;

type Verdicts = Conclusion['verdicts'];

const erasedWords = (meant: Verdicts): string =>
  `ERASED and read back: all of ${meant.length} disk${meant.length === 1 ? '' : 's'} that the task was for (${namesOf(meant)})`;

const openWords = (meant: Verdicts, open: Verdicts, error: TaskResult['error']): string => {
  if (open.length === 0)
    return `NOT ERASED as a whole: the task did not succeed${error ? ` (${error.code})` : ''}`;
  const what = open.every(({ verdict }) => verdict === 'TABLES REMOVED, DATA LEFT')
    ? ', tables removed only'
    : '';
  const of = `${open.length} of ${meant.length} disk${meant.length === 1 ? '' : 's'} that the task was for`;
  return `NOT ERASED${what}: ${of} (${namesOf(open)})`;
};

/** More of them than a sentence holds are in the list below it. */
const NAMED = 20;
const namesOf = (list: Verdicts): string => {
  const names = list
    .slice(0, NAMED)
    .map(({ name, serial }) => `${name}, ${serial?.slice(0, 40) ?? 'no serial number'}`);
  return names.join('; ') + (list.length > NAMED ? `; and ${list.length - NAMED} more` : '');
};
