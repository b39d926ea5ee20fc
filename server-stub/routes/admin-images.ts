import { z } from 'zod';
import { ImagingError } from '../../agent/errors.ts';
import { imageNameSchema } from '../../agent/protocol/index.ts';
import { type ImageAnswer, imageAnswerSchema, verifyAnswerSchema } from '../api.ts';
import { collectChunks, removeVersion } from '../images/remove.ts';
import { verifyVersion } from '../images/verify.ts';
import { readVersion, versionFolder } from '../images/version-folder.ts';
import type { State } from '../state.ts';
import { listImages, versionExists } from '../store/images.ts';
import { versionParams } from './agent-images.ts';
import type { App } from './types.ts';

const nameParams = z.object({ name: imageNameSchema });

/** /api/images */
export const adminImageRoutes = (app: App, state: State): void => {
  const answers = async (): Promise<ImageAnswer[]> =>
    (await listImages(state.db)).filter(({ versions }) => versions.length > 0);
  const existing = async (name: string): Promise<ImageAnswer> => {
    const image = (await answers()).find((known) => known.name === name);
    if (!image) throw new ImagingError('IMAGE_NOT_FOUND', `Cannot find image ${name}: no such image`);
    return image;
  };

  app.get('/api/images', { schema: { response: { 200: z.array(imageAnswerSchema) } } }, answers);

  app.get(
    '/api/images/:name',
    { schema: { params: nameParams, response: { 200: imageAnswerSchema } } },
    (request) => existing(request.params.name),
  );

  app.delete(
    '/api/images/:name',
    { schema: { params: nameParams, response: { 204: z.null() } } },
    async (request, reply) => {
      const { name, versions } = await existing(request.params.name);
      for (const { version } of versions) {
        // smaller versions go with the one that they were made from
        if (await versionExists(state.db, name, version)) await removeVersion(state, name, version);
      }
      await sweep(request.log.info.bind(request.log));
      return reply.code(204).send(null);
    },
  );

  app.get(
    '/api/images/:name/versions/:version',
    { schema: { params: versionParams, response: { 200: z.unknown() } } },
    async (request) => {
      const { name, version } = request.params;
      const found = await readVersion(versionFolder(state.paths.images, name, version));
      if (!found)
        throw new ImagingError('IMAGE_NOT_FOUND', `Cannot find ${name}@${version}: no such version`);
      return found.manifest;
    },
  );

  app.delete(
    '/api/images/:name/versions/:version',
    { schema: { params: versionParams, response: { 204: z.null() } } },
    async (request, reply) => {
      await removeVersion(state, request.params.name, request.params.version);
      await sweep(request.log.info.bind(request.log));
      return reply.code(204).send(null);
    },
  );

  app.post(
    '/api/images/:name/versions/:version/verify',
    { schema: { params: versionParams, response: { 200: verifyAnswerSchema } } },
    async (request, reply) => {
      const gone = new AbortController();
      reply.raw.once('close', () => gone.abort(new Error('the caller hung up')));
      return verifyVersion(state, request.params.name, request.params.version, gone.signal);
    },
  );

  const sweep = async (log: (facts: object, message: string) => void): Promise<void> => {
    log(await collectChunks(state), 'chunks that no version needs were deleted');
  };
};
