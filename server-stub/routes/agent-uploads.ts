import type { Readable } from 'node:stream';
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';
import { ImagingError } from '../../agent/errors.ts';
import {
  imageFileSchema,
  missingAnswerSchema,
  missingRequestSchema,
  openUploadAnswerSchema,
  openUploadSchema,
  packAnswerSchema,
  publishAnswerSchema,
  publishRequestSchema,
  type TaskParams,
  taskAnswerSchema,
} from '../../agent/protocol/index.ts';
import { publishVersion } from '../images/publish.ts';
import { missingChunks, openUpload, receiveFile, receivePack } from '../images/uploads.ts';
import type { State } from '../state.ts';
import { findUpload, type Upload } from '../store/uploads.ts';
import { leasedTasks, ownTask } from './agent-scope.ts';
import { type App, room } from './types.ts';

const MIB = 1024 * 1024;
/** an index of 16 TiB in chunks of 1 MiB has 640 MiB */
const FILE_LIMIT = 1024 * MIB;
const idParams = z.object({ id: z.uuid() });

/** A capture's way into the store. Registered where a session is required. */
export const agentUploadRoutes = async (app: App, state: State): Promise<void> => {
  /** The upload of a capture that the speaking machine holds; also renews its lease. */
  const ownUpload = async (
    request: FastifyRequest,
    id: string,
  ): Promise<{ upload: Upload; cancel: boolean }> => {
    const upload = await findUpload(state.db, { id });
    const task = upload && leasedTasks(state, request).find((row) => row.id === upload.taskId);
    if (!upload || !task) {
      throw new ImagingError('NOT_FOUND', `Cannot find upload ${id}: this machine has no such upload`);
    }
    const { cancel } = await state.board.report(task.id, task.attempt);
    return { upload, cancel };
  };
  const requireOpen = (upload: Upload): void => {
    if (upload.state !== 'open') {
      throw new ImagingError('CONFLICT', `Cannot add to upload ${upload.id}: it is ${upload.state}`);
    }
  };

  app.post(
    '/agent/v1/uploads',
    { schema: { body: openUploadSchema, response: { 200: openUploadAnswerSchema } } },
    async (request) => {
      const { taskId, attempt, image } = request.body;
      const task = await ownTask(state, request, taskId);
      await state.board.report(task.id, attempt);
      if (task.type !== 'capture' || (task.params as TaskParams<'capture'>).image !== image) {
        throw new ImagingError(
          'BAD_REQUEST',
          `Cannot open an upload: task ${task.id} does not capture ${image}`,
        );
      }
      const upload = await openUpload(state, task, image);
      return { uploadId: upload.id, version: upload.version };
    },
  );

  app.post(
    '/agent/v1/chunks/missing',
    { schema: { body: missingRequestSchema, response: { 200: missingAnswerSchema } } },
    async (request) => {
      const { upload, cancel } = await ownUpload(request, request.body.uploadId);
      requireOpen(upload);
      return { missing: await missingChunks(state, upload, request.body.ids), cancel };
    },
  );

  app.post(
    '/agent/v1/uploads/:id/publish',
    {
      schema: { params: idParams, body: publishRequestSchema, response: { 200: publishAnswerSchema } },
      bodyLimit: 8 * MIB,
    },
    async (request) => {
      const { upload } = await ownUpload(request, request.params.id);
      const { image, version } = upload;
      // after `abandoned` there is nothing to publish; `published` is repeated and confirmed
      if (upload.state === 'abandoned') requireOpen(upload);
      await publishVersion(state, upload, request.body.manifest);
      request.log.info({ image, version }, 'version published');
      return { image, version };
    },
  );

  await app.register(
    room((streams) => {
      acceptStreams(streams);

      streams.post(
        '/agent/v1/packs',
        { schema: { querystring: z.object({ upload: z.uuid() }), response: { 200: packAnswerSchema } } },
        async (request, reply) => {
          const { upload, cancel } = await ownUpload(request, request.query.upload);
          requireOpen(upload);
          const gone = new AbortController();
          reply.raw.once('close', () => gone.abort(new Error('the agent hung up')));
          const counts = await receivePack(state, upload, request.body as Readable, gone.signal);
          return { ...counts, cancel };
        },
      );

      streams.put(
        '/agent/v1/uploads/:id/files/:name',
        {
          schema: {
            params: z.object({ id: z.uuid(), name: imageFileSchema.shape.name }),
            response: { 200: taskAnswerSchema },
          },
        },
        async (request) => {
          const { upload, cancel } = await ownUpload(request, request.params.id);
          requireOpen(upload);
          await receiveFile(state, upload, request.params.name, request.body as Readable, FILE_LIMIT);
          return { cancel };
        },
      );
    }),
  );
};

/** Bodies of any type are handed on as they come: nothing of a pack is collected in memory here. */
const acceptStreams = (app: App): void => {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { bodyLimit: 2 * 1024 * MIB }, (_request, payload, done) =>
    done(null, payload),
  );
};
