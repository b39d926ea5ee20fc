import { writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode, ImagingError } from '../../agent/errors.ts';
import {
  finalStates,
  isErased,
  type TaskResult,
  type WipedDisk,
  type WipeReport,
} from '../../agent/protocol/index.ts';
import type { NewTaskBody, TaskAnswer } from '../api.ts';
import type { CommandContext, Print } from './command.ts';
import { bytes, printable, seconds, table, when } from './format.ts';
import { surfaceLines } from './surface.ts';

/** `task wait` and `task add --wait` end with these. */
export const exitCodes = { succeeded: 0, failed: 1, cancelled: 3, lost: 4 } as const;

export const addTask = async ({ api, print }: CommandContext, body: NewTaskBody): Promise<string> => {
  const task = await api.post<TaskAnswer>('/api/tasks', body);
  print(task, () => `added ${task.type} task ${task.id} for ${printable(task.host.name)}`);
  return task.id;
};

export const listTasks = async (
  { api, print }: CommandContext,
  filter: { host?: string | undefined; open?: boolean | undefined },
): Promise<void> => {
  const query = new URLSearchParams();
  if (filter.host) query.set('host', filter.host);
  if (filter.open) query.set('open', 'true');
  const tasks = await api.get<TaskAnswer[]>(`/api/tasks?${query}`);
  print(tasks, () =>
    tasks.length === 0
      ? 'no tasks'
      : table(
          ['ID', 'HOST', 'TYPE', 'STATE', 'CREATED', 'PROGRESS'],
          tasks.map((task) => [
            task.id,
            task.host.name,
            task.type,
            stateOf(task),
            when(task.createdAt),
            progressOf(task),
          ]),
        ),
  );
};

export const showTask = async ({ api, print }: CommandContext, id: string): Promise<void> => {
  const task = await api.get<TaskAnswer>(`/api/tasks/${encodeURIComponent(id)}`);
  print(task, () => describe(task));
};

export const cancelTask = async ({ api, print }: CommandContext, id: string): Promise<void> => {
  const task = await api.post<TaskAnswer>(`/api/tasks/${encodeURIComponent(id)}/cancel`);
  const unstoppable = task.progress?.uninterruptible;
  print(task, () =>
    task.state === 'cancelled'
      ? `task ${id} is cancelled`
      : `task ${id} will stop${unstoppable ? ` after ${printable(unstoppable)}` : ' at the next answer to its machine'}`,
  );
};

export const taskLog = async ({ api }: CommandContext, id: string, out: Print): Promise<void> => {
  const text = await api.text(`/api/tasks/${encodeURIComponent(id)}/log?format=text`);
  out(text.trimEnd().split('\n').map(printable).join('\n'));
};

/** The signed JSON, printed; with `pdf`, its rendering in this file. @throws ImagingError BAD_REQUEST: the file cannot be written */
export const taskCertificate = async (
  { api }: CommandContext,
  id: string,
  { pdf }: { pdf?: string | undefined },
  out: Print,
): Promise<void> => {
  const path = `/api/tasks/${encodeURIComponent(id)}/certificate`;
  if (pdf === undefined) return out((await api.text(path)).trimEnd());
  const pages = await api.bytes(`${path}.pdf`);
  await writeFile(pdf, pages).catch((cause: unknown) => {
    throw new ImagingError('BAD_REQUEST', `Cannot write ${pdf}: ${String(cause)}`, { cause });
  });
};

/** Until the task has ended. A server that is away for a while is waited for. @returns the exit code */
export const waitForTask = async (
  { api, print }: CommandContext,
  id: string,
  options: { pollMs?: number; onChange?: (line: string) => void } = {},
): Promise<number> => {
  const { pollMs = 500, onChange } = options;
  let last = '';
  for (;;) {
    const task = await api.get<TaskAnswer>(`/api/tasks/${encodeURIComponent(id)}`).catch((error: unknown) => {
      if (hasCode(error, 'SERVER_UNREACHABLE')) return undefined;
      throw error;
    });
    if (task && finalStates.includes(task.state)) {
      print(task, () => describe(task));
      return exitCodes[task.state as keyof typeof exitCodes];
    }
    const line = task ? `${stateOf(task)} ${task.progress?.step ?? ''}`.trim() : 'the server does not answer';
    if (line !== last) onChange?.(line);
    last = line;
    await sleep(pollMs);
  }
};

const stateOf = (task: TaskAnswer): string => {
  if (task.place) return `waiting, place ${task.place.place} of ${task.place.of}`;
  return task.cancel && task.state === 'running' ? 'running, to be cancelled' : task.state;
};

const progressOf = ({ progress, state }: TaskAnswer): string => {
  if (!progress || finalStates.includes(state)) return '';
  const share = progress.total
    ? `${Math.floor((progress.done / progress.total) * 100)} %`
    : bytes(progress.done);
  const eta = progress.etaSeconds === null ? '' : `, ${seconds(progress.etaSeconds)} left`;
  return `${progress.step} ${share}, ${bytes(progress.rate)}/s${eta}${slowestOf(progress)}`;
};

const slowestOf = ({ busy, bottleneck }: NonNullable<TaskAnswer['progress']>): string => {
  const share = Object.entries(busy ?? {}).find(([stage]) => stage === bottleneck)?.[1];
  return share === undefined ? '' : `, slowest: ${bottleneck} ${Math.round(share * 100)} %`;
};

const describe = (task: TaskAnswer): string => {
  const result = task.result as TaskResult | null;
  return [
    `task      ${task.id}`,
    `host      ${task.host.name}`,
    `type      ${task.type} ${JSON.stringify(task.params)}`,
    `state     ${stateOf(task)}${task.reason ? ` (${task.reason})` : ''}, attempt ${task.attempt}`,
    `created   ${when(task.createdAt)}`,
    `started   ${when(task.startedAt)}`,
    `ended     ${when(task.endedAt)}`,
    ...(progressOf(task) ? [`progress  ${progressOf(task)}`] : []),
    ...(result?.error ? [`error     ${result.error.code}: ${result.error.message}`] : []),
    ...(result?.summary ? summaryLines(result.summary) : []),
    // a success has them in its summary
    ...(result?.wipe && result.error ? result.wipe.disks.map(diskLine) : []),
    ...(result?.evidence ?? []).map(({ what, proof }) => `proved    ${what}: ${proof}`),
    ...(result?.warnings ?? []).map((warning) => `warning   ${warning}`),
    ...(result?.surface ? surfaceLines(result.surface.disks) : []),
    ...(result?.wipe
      ? [`${signedName(task.state, result.wipe)} fog-server task certificate ${task.id}`]
      : []),
  ]
    .map(printable)
    .join('\n');
};

const diskLine = ({ facts, status, reason }: WipedDisk): string =>
  `disk      ${facts.name}, ${facts.serial ?? 'no serial number'}: ${status}${reason ? ` (${reason})` : ''}`;

const signedName = (state: string, { disks }: WipeReport): string =>
  state === 'succeeded' && disks.every(({ status }) => status === 'skipped' || isErased(status))
    ? 'certificate:'
    : 'record of what is NOT ERASED:';

/** A dry run's drawing of the disk, behind an empty line, is 80 columns wide by itself. */
const summaryLines = (summary: string): string[] => {
  const lines = summary.split('\n');
  const drawing = lines.indexOf('');
  return lines.map((line, at) => (drawing < 0 || at < drawing ? `summary   ${line}` : line));
};
