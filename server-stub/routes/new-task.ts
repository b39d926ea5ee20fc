import { z } from 'zod';
import { ImagingError } from '../../agent/errors.ts';
import {
  imageNameSchema,
  isWipe,
  type TaskSecrets,
  type TaskType,
  taskParamsSchemas,
} from '../../agent/protocol/index.ts';
import type { State } from '../state.ts';
import type { Host } from '../store/hosts.ts';
import { newestVersion, versionExists } from '../store/images.ts';

/**
 * Parameters of a new task, complete: the host's disk hint where none is given, the newest version where a
 * deploy names none, defaults of the schema. Every attempt then does the same.
 *
 * @throws ImagingError BAD_REQUEST, IMAGE_NOT_FOUND
 */
export const taskParams = async (
  state: State,
  host: Host,
  type: TaskType,
  given: Record<string, unknown>,
): Promise<unknown> => {
  const params = { ...given };
  const named = params['disk'] !== undefined || params['disks'] !== undefined;
  // a wipe says itself what it destroys, and a surface test that names nothing is of all disks
  if (type !== 'inventory' && type !== 'surface-test' && !isWipe(type) && !named && host.disk)
    params['disk'] = host.disk;
  if (type === 'deploy') await fixVersion(state, params);
  const parsed = taskParamsSchemas[type].safeParse(params);
  if (!parsed.success) {
    throw new ImagingError(
      'BAD_REQUEST',
      `Cannot add the task: params: ${z.prettifyError(parsed.error).replaceAll('\n', ' ')}`,
      { details: { issues: parsed.error.issues.map(({ path, message }) => ({ path, message })) } },
    );
  }
  return parsed.data;
};

/**
 * Parameters that say whether keys came with the task, since the keys themselves are in none: after a restart of
 * the server the machine can then tell that they are gone.
 *
 * @throws ImagingError BAD_REQUEST
 */
export const withUnlock = (
  type: TaskType,
  params: Record<string, unknown>,
  secrets: TaskSecrets | undefined,
): Record<string, unknown> => {
  if (params['unlock'] !== undefined) {
    throw new ImagingError('BAD_REQUEST', 'Cannot add the task: params.unlock follows from secrets.unlock');
  }
  if (!secrets) return params;
  if (type === 'capture') return { ...params, unlock: true };
  throw new ImagingError('BAD_REQUEST', `Cannot add the task: a ${type} task takes no keys`);
};

const fixVersion = async (state: State, params: Record<string, unknown>): Promise<void> => {
  const image = imageNameSchema.safeParse(params['image']);
  // the task's own schema says what is wrong with the name
  if (!image.success) return;
  const version = params['version'] ?? (await newestVersion(state.db, image.data));
  const found = typeof version === 'number' && (await versionExists(state.db, image.data, version));
  if (!found) {
    const which = params['version'] === undefined ? image.data : `${image.data}@${String(params['version'])}`;
    throw new ImagingError('IMAGE_NOT_FOUND', `Cannot add the task: there is no image ${which}`);
  }
  params['version'] = version;
};
