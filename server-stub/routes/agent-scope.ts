import type { FastifyRequest } from 'fastify';
import { ImagingError } from '../../agent/errors.ts';
import type { TaskParams } from '../../agent/protocol/index.ts';
import { bearerOf } from '../http/bearer.ts';
import type { TaskRow } from '../queue/task-row.ts';
import type { State } from '../state.ts';
import { findVersion } from '../store/images.ts';
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
 * The deploy that this machine is running, if it is of this version or of the one that this was made from for
 * smaller disks: all that it may read of images.
 *
 * @throws ImagingError NOT_FOUND
 */
export const requireDeployOf = async (
  state: State,
  request: FastifyRequest,
  image: string,
  version: number,
): Promise<TaskRow> => {
  const deploys = leasedTasks(state, request).filter(
    ({ type, params }) => type === 'deploy' && (params as TaskParams<'deploy'>).image === image,
  );
  const deployOf = (wanted: number): TaskRow | undefined =>
    deploys.find(({ params }) => (params as TaskParams<'deploy'>).version === wanted);
  const row = deployOf(version) ?? (await deployOfOrigin(state, deploys, image, version));
  if (!row) {
    throw new ImagingError('NOT_FOUND', `Cannot read ${image}@${version}: this machine is not deploying it`);
  }
  return row;
};

/** The deploy of the version that this one was made from, or of another one made from the same. */
const deployOfOrigin = async (
  state: State,
  deploys: readonly TaskRow[],
  image: string,
  version: number,
): Promise<TaskRow | undefined> => {
  if (deploys.length === 0) return undefined;
  const origin = (await findVersion(state.db, image, version))?.derivedFrom ?? null;
  if (origin === null) return undefined;
  for (const row of deploys) {
    const own = (row.params as TaskParams<'deploy'>).version;
    if (own === origin || (await findVersion(state.db, image, own))?.derivedFrom === origin) return row;
  }
  return undefined;
};

/**
 * Versions of an image that this machine may compare its disk with: those that its tasks, ended ones too, deploy or have
 * written or made. It had their content already, so their indexes tell it nothing new. The newest task's first.
 */
export const ownVersions = async (
  state: State,
  request: FastifyRequest,
  image: string,
): Promise<number[]> => {
  const tasks = await listTasks(state.db, { hostId: request.hostId, limit: TASKS });
  const versions = tasks.flatMap(({ row, result }) => {
    // a deploy may have written a version that was made smaller for its disk
    const written = result?.image?.name === image ? [result.image.version] : [];
    if (row.type !== 'deploy') return written;
    const params = row.params as TaskParams<'deploy'>;
    return params.image === image ? [...written, params.version] : written;
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
  await requireDeployOf(state, request, image, version);
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
