import { z } from 'zod';
import { ImagingError } from '../../agent/errors.ts';
import { isWipe } from '../../agent/protocol/index.ts';
import { certificatePdf } from '../certificate/pdf.ts';
import { isFinal } from '../queue/task-row.ts';
import type { State } from '../state.ts';
import { findCertificate, findTask, type StoredTask } from '../store/tasks.ts';
import type { App } from './types.ts';

const idParams = z.object({ id: z.uuid() });

/** /api/tasks/:id/certificate: of a wipe that has ended, as it was signed: the certificate, or the record of what is not erased. */
export const adminCertificateRoutes = (app: App, state: State): void => {
  const existing = async (id: string): Promise<string> => {
    const text = await findCertificate(state.db, id);
    if (text !== undefined) return text;
    const task = await findTask(state.db, id);
    const why = task ? whyNone(task) : 'no such task';
    throw new ImagingError('NOT_FOUND', `Cannot find a certificate of task ${id}: ${why}`);
  };

  for (const path of ['/api/tasks/:id/certificate', '/api/tasks/:id/certificate.json']) {
    app.get(path, { schema: { params: idParams } }, async (request, reply) => {
      const text = await existing(request.params.id);
      return reply.type('application/json; charset=utf-8').send(text);
    });
  }

  app.get('/api/tasks/:id/certificate.pdf', { schema: { params: idParams } }, async (request, reply) => {
    const { erased, pdf } = await certificatePdf(await existing(request.params.id));
    const name = `inline; filename="${erased ? 'erased' : 'not-erased'}-${request.params.id}.pdf"`;
    return reply.type('application/pdf').header('content-disposition', name).send(pdf);
  });
};

/** One that touched no disk (refused, stopped in the countdown, a dry run) or never reported what it did has nothing to sign. */
const whyNone = ({ row, result }: StoredTask): string => {
  const ended = `the ${row.type} task is ${row.state}`;
  return isFinal(row) && isWipe(row.type) && !result?.wipe ? `${ended}, and reported on no disk` : ended;
};
