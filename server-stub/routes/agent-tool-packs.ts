import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { ImagingError, isErrno } from '../../agent/errors.ts';
import { sha256Schema } from '../../agent/protocol/index.ts';
import type { App } from './types.ts';

const packSchema = z.object({ size: z.number().int(), sha256: sha256Schema });
/** the part of artefacts.json (initramfs/build/artefacts.ts) that is of interest here */
const artefactsSchema = z.object({ packs: z.record(z.string(), packSchema) });

/** Tools that only some tasks need: GET /agent/v1/tool-packs lists them, …/:sha256 sends one. */
export const agentToolPackRoutes = (app: App, folder: string | undefined): void => {
  app.get(
    '/agent/v1/tool-packs',
    { schema: { response: { 200: z.array(packSchema.extend({ name: z.string() })) } } },
    async () => Object.entries(await readPacks(folder)).map(([name, pack]) => ({ name, ...pack })),
  );

  app.get(
    '/agent/v1/tool-packs/:sha256',
    { schema: { params: z.object({ sha256: sha256Schema }) } },
    async (request, reply) => {
      const { sha256 } = request.params;
      const known = Object.values(await readPacks(folder)).some((pack) => pack.sha256 === sha256);
      if (!known || folder === undefined) {
        throw new ImagingError('NOT_FOUND', `Cannot send tool pack ${sha256}: no such pack`);
      }
      const path = join(folder, 'packs', `${sha256}.squashfs`);
      const { size } = await stat(path);
      reply.header('content-length', size).type('application/octet-stream');
      return reply.send(createReadStream(path, { highWaterMark: 1024 * 1024 }));
    },
  );
};

const readPacks = async (folder: string | undefined): Promise<z.infer<typeof artefactsSchema>['packs']> => {
  if (folder === undefined) return {};
  try {
    return artefactsSchema.parse(JSON.parse(await readFile(join(folder, 'artefacts.json'), 'utf8'))).packs;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return {};
    throw error;
  }
};
