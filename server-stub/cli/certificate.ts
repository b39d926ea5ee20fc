import { createPrivateKey, createPublicKey } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ImagingError } from '../../agent/errors.ts';
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

/**
 * Verify a certificate's file. Needs no server and no network.
 *
 * @throws ImagingError CERTIFICATE_INVALID, BAD_REQUEST (the file cannot be read), CONFIG_INVALID (no key to trust)
 */
export const verifyFile = async (
  file: string,
  { data, key, json }: CertificateOptions,
  out: Print = console.log,
): Promise<void> => {
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new ImagingError('BAD_REQUEST', `Cannot read ${file}: ${String(cause)}`, { cause });
  });
  const trusted = key ?? (await keyOf(data));
  const body = verifyCertificate(text, trusted);
  if (json) return out(JSON.stringify({ valid: true, keyId: keyIdOf(trusted), certificate: body }, null, 2));
  const disks = body.report.disks.map(
    ({ facts, status }) =>
      `  ${status.padEnd(19)} ${facts.serial ?? 'no serial'} ${facts.model ?? ''} ${decimal(facts.size)}`,
  );
  const lines = [
    `valid: signed by key ${keyIdOf(trusted)}, ${body.issuedAt}`,
    `${body.task.type} of ${body.host.name}, serial ${body.machine?.serial ?? 'unknown'}`,
    ...disks,
  ];
  out(lines.map(printable).join('\n'));
};

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
