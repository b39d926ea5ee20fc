import { z } from 'zod';
import { ImagingError } from '../../agent/errors.ts';
import { certificatePdf } from '../certificate/pdf.ts';
import type { State } from '../state.ts';
import { findCertificate, findTask } from '../store/tasks.ts';
import type { App } from './types.ts';

const idParams = z.object({ id: z.uuid() });

/** /api/tasks/:id/certificate: of a wipe that has succeeded, as it was signed. */
export const adminCertificateRoutes = (app: App, state: State): void => {
  const existing = async (id: string): Promise<string> => {
    const text = await findCertificate(state.db, id);
    if (text !== undefined) return text;
    const task = await findTask(state.db, id);
    const why = task ? `the ${task.row.type} task is ${task.row.state}` : 'no such task';
    throw new ImagingError('NOT_FOUND', `Cannot find a certificate of task ${id}: ${why}`);
  };

  for (const path of ['/api/tasks/:id/certificate', '/api/tasks/:id/certificate.json']) {
    app.get(path, { schema: { params: idParams } }, async (request, reply) => {
      const text = await existing(request.params.id);
      return reply.type('application/json; charset=utf-8').send(text);
    });
  }

  app.get('/api/tasks/:id/certificate.pdf', { schema: { params: idParams } }, async (request, reply) => {
    const pdf = await certificatePdf(await existing(request.params.id));
    const name = `inline; filename="erasure-${request.params.id}.pdf"`;
    return reply.type('application/pdf').header('content-disposition', name).send(pdf);
  });
};
