import { createPrivateKey, createPublicKey } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ImagingError } from '../../agent/errors.ts';
import type { CertificateBody } from '../certificate/certificate.ts';
import { verifyCertificate } from '../certificate/verify.ts';
import { keyIdOf } from '../store/keys.ts';
import type { Print } from './command.ts';
import { decimal, printable } from './format.ts';

export interface CertificateOptions {
  /** data folder of the server whose key is trusted */
  data: string;
  /** trusted public key (SPKI, base64), where the data folder is elsewhere */
  key?: string | undefined;
  json: boolean;
}

/** The public key that this server's certificates are signed with: to be kept where the server cannot change it. */
export const showKey = async (
  { data, json }: CertificateOptions,
  out: Print = console.log,
): Promise<void> => {
  const publicKey = await keyOf(data);
  const keyId = keyIdOf(publicKey);
  out(json ? JSON.stringify({ keyId, publicKey }, null, 2) : `${publicKey}\n(key ${keyId}, Ed25519)`);
};

/** `certificate verify` ends with these; 1 is a file that is not to be trusted, or not to be read. */
export const verifyCodes = { erased: 0, notErased: 3 } as const;

/**
 * Verify a certificate's file, or a record's. Needs no server and no network. @returns the exit code: a genuine record of what is not
 * erased is no success.
 *
 * @throws ImagingError CERTIFICATE_INVALID, BAD_REQUEST (the file cannot be read), CONFIG_INVALID (no key to trust)
 */
export const verifyFile = async (
  file: string,
  { data, key, json }: CertificateOptions,
  out: Print = console.log,
): Promise<number> => {
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new ImagingError('BAD_REQUEST', `Cannot read ${file}: ${String(cause)}`, { cause });
  });
  const trusted = key ?? (await keyOf(data));
  const body = verifyCertificate(text, trusted);
  const { erased } = body;
  if (json) {
    out(JSON.stringify({ valid: true, erased, keyId: keyIdOf(trusted), certificate: body }, null, 2));
  } else {
    const lines = [
      `signature valid: key ${keyIdOf(trusted)}, ${body.issuedAt}`,
      body.title,
      body.conclusion,
      `${body.task.type} of ${body.host.name}, serial ${body.machine?.serial ?? 'unknown'}, task ${body.task.id}`,
      ...disksOf(body),
    ];
    out(lines.map(printable).join('\n'));
  }
  return erased ? verifyCodes.erased : verifyCodes.notErased;
};

const disksOf = ({ report, verdicts }: CertificateBody): string[] =>
  report.disks.map(({ facts, status }, at) => {
    const { verdict = 'NOT ERASED', why = null } = verdicts[at] ?? {};
    const disk = [facts.name, facts.serial ?? 'no serial', facts.model, decimal(facts.size)].filter(Boolean);
    return `  ${verdict}: ${disk.join(' ')} (${status}${why ? `; ${why}` : ''})`;
  });

const keyOf = async (data: string): Promise<string> => {
  const file = join(data, 'server.key');
  try {
    const key = createPublicKey(createPrivateKey(await readFile(file, 'utf8')));
    return key.export({ type: 'spki', format: 'der' }).toString('base64');
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ImagingError(
      'CONFIG_INVALID',
      `Cannot tell which key to trust: give --key, or --data of the server (${file}: ${reason})`,
      { cause },
    );
  }
};
