import { isWipe, type TaskParams, type TaskResult, type WipeType } from '../../agent/protocol/index.ts';
import type { TaskRow } from '../queue/task-row.ts';
import type { Host } from '../store/hosts.ts';
import type { SigningKey } from '../store/keys.ts';
import { canonicalJson } from './canonical.ts';
import { type Certificate, type CertificateBody, certificateBodySchema } from './certificate.ts';
import { conclude } from './conclude.ts';

const STANDARD =
  'NIST SP 800-88 r2; techniques of IEEE 2883-2022: an overwrite is Clear, a sanitize of the drive or an enhanced security erase is Purge';

/** What nobody should read into a certificate. */
const claims = {
  readBack:
    'Erased means: what the drive returns for every address that was read is what was written last. What a drive keeps out of reach of its addresses (reallocated sectors, spare flash) is reached only by its own erasure (purge).',
  flash: 'An overwrite of flash does not reach all of its cells.',
  firmware:
    "A purge is the drive's own work and word; that its content is gone was checked where the report says.",
  format:
    'NVMe Format was a Purge by NIST SP 800-88 r1, which r2 has replaced; IEEE 2883-2022 asks for Sanitize.',
  fast: 'A fast wipe removes tables and signatures only: data between the two ends of the disk is still there. It is no sanitization.',
};

/**
 * The signed text of a wipe that has ended and reported its disks: a certificate, or the record of what is not erased.
 * `now`: the server's clock; the agent's is in the report only.
 */
export const issueCertificate = (
  key: SigningKey,
  task: TaskRow,
  host: Host,
  result: TaskResult,
  now: Date,
): string => {
  if (!isWipe(task.type) || !result.wipe) throw new Error(`task ${task.id} is no wipe with a report`);
  const params = task.params as TaskParams<WipeType>;
  const { error } = result;
  const touched = result.wipe.disks.filter(({ status }) => status !== 'skipped');
  const body: CertificateBody = certificateBodySchema.parse({
    format: 1,
    ...conclude(task, result, result.wipe),
    outcome: result.outcome,
    error: error && { code: error.code, message: error.message },
    standard: STANDARD,
    claims: [
      claims.readBack,
      ...(touched.some(({ facts, purge }) => !facts.rotational && !purge?.method) ? [claims.flash] : []),
      ...(touched.some(({ purge }) => purge?.method) ? [claims.firmware] : []),
      ...(touched.some(({ purge }) => purge?.method?.startsWith('nvme-format')) ? [claims.format] : []),
      ...(touched.some(({ status }) => status === 'signatures-removed') ? [claims.fast] : []),
    ],
    issuedAt: now.toISOString(),
    task: {
      ...{ id: task.id, type: task.type, params, attempt: task.attempt },
      startedAt: new Date(task.startedAt ?? task.createdAt).toISOString(),
      endedAt: now.toISOString(),
    },
    host: { id: host.id, name: host.name, macs: host.macs },
    machine: host.identity,
    operator: params.operator ?? null,
    destination: params.destination ?? null,
    report: result.wipe,
  } satisfies CertificateBody);
  const signed: Certificate = {
    certificate: body,
    signature: {
      ...{ algorithm: 'Ed25519', over: 'RFC 8785', keyId: key.keyId, publicKey: key.publicKey },
      value: key.sign(canonicalJson(body)),
    },
  };
  return `${JSON.stringify(signed, null, 2)}\n`;
};
