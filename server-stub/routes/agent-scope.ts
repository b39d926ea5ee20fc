import type { FastifyRequest } from 'fastify';
import { ImagingError } from '../../agent/errors.ts';
import type { TaskParams } from '../../agent/protocol/index.ts';
import { bearerOf } from '../http/bearer.ts';
import type { TaskRow } from '../queue/task-row.ts';
import type { State } from '../state.ts';
import { findTask, listTasks } from '../store/tasks.ts';
import { acceptSession } from '../store/tokens.ts';

/** tasks of a machine that are looked through */
const TASKS = 1000;

declare module 'fastify' {
  interface FastifyRequest {
    /** the host whose session this request is of; empty where no session is needed */
    hostId: string;
  }
}

/** onRequest hook of the agent's routes: the session token says which machine is speaking. */
export const requireSession =
  (state: State) =>
  async (request: FastifyRequest): Promise<void> => {
    const { hostId } = await acceptSession(state.db, bearerOf(request));
    request.hostId = hostId;
    state.seen(hostId);
  };

/**
 * A task of the speaking machine. Another machine's task is answered as if it did not exist.
 * @throws ImagingError NOT_FOUND
 */
export const ownTask = async (state: State, request: FastifyRequest, id: string): Promise<TaskRow> => {
  const row = state.board.live(id)?.row ?? (await findTask(state.db, id))?.row;
  if (!row || row.hostId !== request.hostId) {
    throw new ImagingError('NOT_FOUND', `Cannot find task ${id}: this machine has no such task`);
  }
  return row;
};

/**
 * The deploy that this machine is running, if it is of this version: all that it may read of images.
 * @throws ImagingError NOT_FOUND
 */
export const requireDeployOf = (
  state: State,
  request: FastifyRequest,
  image: string,
  version: number,
): TaskRow => {
  const row = leasedTasks(state, request).find((task) => {
    if (task.type !== 'deploy') return false;
    const params = task.params as TaskParams<'deploy'>;
    return params.image === image && params.version === version;
  });
  if (!row) {
    throw new ImagingError('NOT_FOUND', `Cannot read ${image}@${version}: this machine is not deploying it`);
  }
  return row;
};

/**
 * Versions of an image that this machine may compare its disk with: those that its tasks, ended ones too, deploy or have
 * made. It had their content already, so their indexes tell it nothing new. The newest task's version first.
 */
export const ownVersions = async (
  state: State,
  request: FastifyRequest,
  image: string,
): Promise<number[]> => {
  const tasks = await listTasks(state.db, { hostId: request.hostId, limit: TASKS });
  const versions = tasks.flatMap(({ row, result }) => {
    if (row.type === 'capture') return result?.image?.name === image ? [result.image.version] : [];
    if (row.type !== 'deploy') return [];
    const params = row.params as TaskParams<'deploy'>;
    return params.image === image ? [params.version] : [];
  });
  return [...new Set(versions)];
};

/** Indexes, maps and boot areas are read by whose task the version is. @throws ImagingError NOT_FOUND */
export const requireOwnVersion = async (
  state: State,
  request: FastifyRequest,
  image: string,
  version: number,
): Promise<void> => {
  if ((await ownVersions(state, request, image)).includes(version)) return;
  throw new ImagingError(
    'NOT_FOUND',
    `Cannot read ${image}@${version}: no task of this machine deploys it or has made it`,
  );
};

/**
 * A manifest also by a capture of the same image: it reads back what it has published.
 * @throws ImagingError NOT_FOUND
 */
export const requireReaderOf = async (
  state: State,
  request: FastifyRequest,
  image: string,
  version: number,
): Promise<void> => {
  const captures = leasedTasks(state, request).some(
    ({ type, params }) => type === 'capture' && (params as TaskParams<'capture'>).image === image,
  );
  if (!captures) await requireOwnVersion(state, request, image, version);
};

/** Tasks that the speaking machine holds now. A silent one is held: only a new check-in takes it away. */
export const leasedTasks = (state: State, request: FastifyRequest): TaskRow[] =>
  state.board
    .open()
    .map(({ row }) => row)
    .filter(({ hostId, state: s }) => hostId === request.hostId && (s === 'running' || s === 'silent'));
