import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { ImagingError, isErrno } from '../../agent/errors.ts';
import { packStream } from '../../agent/image/pack.ts';
import {
  imageFileSchema,
  imageNameSchema,
  ownVersionsAnswerSchema,
  packRequestSchema,
  signedManifestSchema,
  versionNumberSchema,
} from '../../agent/protocol/index.ts';
import { checkChunks } from '../images/hurt.ts';
import { filesOf, readVersion, versionFolder } from '../images/version-folder.ts';
import type { State } from '../state.ts';
import { soundChunks } from '../store/chunks.ts';
import { ownVersions, requireDeployOf, requireOwnVersion, requireReaderOf } from './agent-scope.ts';
import type { App } from './types.ts';

export const versionParams = z.object({
  name: imageNameSchema,
  version: z.coerce.number().pipe(versionNumberSchema),
});

/** What a deploy reads of its own version, and a machine of what it was given. Registered where a session is required. */
export const agentImageRoutes = (app: App, state: State): void => {
  const existing = async (name: string, version: number) => {
    const found = await readVersion(versionFolder(state.paths.images, name, version));
    if (!found) throw new ImagingError('IMAGE_NOT_FOUND', `Cannot read ${name}@${version}: no such version`);
    return found;
  };

  app.get(
    '/agent/v1/images/:name/versions',
    { schema: { params: versionParams.pick({ name: true }), response: { 200: ownVersionsAnswerSchema } } },
    async (request) => ({ versions: await ownVersions(state, request, request.params.name) }),
  );

  app.get(
    '/agent/v1/images/:name/versions/:version',
    { schema: { params: versionParams, response: { 200: signedManifestSchema } } },
    async (request) => {
      const { name, version } = request.params;
      await requireReaderOf(state, request, name, version);
      const { text, signature } = await existing(name, version);
      return { manifest: text, signature, keyId: state.key.keyId };
    },
  );

  app.get(
    '/agent/v1/images/:name/versions/:version/files/:file',
    { schema: { params: versionParams.extend({ file: imageFileSchema.shape.name }) } },
    async (request, reply) => {
      const { name, version, file } = request.params;
      await requireOwnVersion(state, request, name, version);
      const { manifest } = await existing(name, version);
      if (!filesOf(manifest).some((known) => known.name === file)) {
        throw new ImagingError('NOT_FOUND', `Cannot read ${file}: ${name}@${version} has no such file`);
      }
      const path = join(versionFolder(state.paths.images, name, version), file);
      const { size } = await stat(path);
      reply.header('content-length', size).type('application/octet-stream');
      return reply.send(createReadStream(path, { highWaterMark: 1024 * 1024 }));
    },
  );

  app.post(
    '/agent/v1/packs/fetch',
    { schema: { body: packRequestSchema }, bodyLimit: 256 * 1024 },
    async (request, reply) => {
      const { image, version, ids } = request.body;
      const task = await requireDeployOf(state, request, image, version);
      await state.board.report(task.id, task.attempt);
      const { ids: own } = await state.library.indexOf(image, version);
      const foreign = ids.find((id) => !own.has(id));
      if (foreign) {
        throw new ImagingError(
          'NOT_FOUND',
          `Cannot send chunk ${foreign}: it is not part of ${image}@${version}`,
        );
      }
      await requireWhole(state, ids);
      const gone = new AbortController();
      reply.raw.once('close', () => gone.abort(new Error('the agent hung up')));
      reply.type('application/x-tar');
      return reply.send(packStream(state.library.store.fetch(ids, gone.signal)));
    },
  );
};

/**
 * The cheap half of a check, before the first byte is sent: every file is there with the size that it was
 * stored with. The agent makes the other half, and reports what it finds.
 *
 * @throws ImagingError CHUNK_MISSING, CHUNK_CORRUPT; the versions that need the chunk are marked as hurt
 */
const requireWhole = async (state: State, ids: readonly string[]): Promise<void> => {
  const sizes = await soundChunks(state.db, ids);
  const { store } = state.library;
  const suspected: string[] = [];
  await Promise.all(
    ids.map(async (id) => {
      const size = await stat(store.path(id)).then(
        (file) => file.size,
        (error: unknown) => {
          if (isErrno(error, 'ENOENT')) return undefined;
          throw error;
        },
      );
      if (size === undefined || size !== sizes.get(id)) suspected.push(id);
    }),
  );
  if (suspected.length === 0) return;
  const { damaged, missing } = await checkChunks(state, suspected);
  const [id] = [...damaged, ...missing];
  if (id === undefined) return;
  const [code, what] =
    damaged.length > 0 ? (['CHUNK_CORRUPT', 'damaged'] as const) : (['CHUNK_MISSING', 'missing'] as const);
  throw new ImagingError(code, `Cannot send chunk ${id}: it is ${what} in the store`, {
    details: { id, ids: [...damaged, ...missing] },
  });
};
