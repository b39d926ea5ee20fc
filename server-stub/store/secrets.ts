import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { isErrno } from '../../agent/errors.ts';

/** A new bearer token: 256 random bits, URL-safe. */
export const newToken = (): string => randomBytes(32).toString('base64url');

/** Tokens are kept as their SHA-256 only: who reads the database cannot speak for a machine. */
export const hashToken = (token: string): string => createHash('sha256').update(token).digest('hex');

/** Compare two secrets without telling by the time taken how much of them agrees. */
export const sameSecret = (a: string, b: string): boolean =>
  timingSafeEqual(createHash('sha256').update(a).digest(), createHash('sha256').update(b).digest());

/**
 * The text of a secret file; made by `create` at the first start, mode 0600, whole or not at all.
 * @throws the file system's own error: a server without its key must not start
 */
export const secretFile = (path: string, create: () => string): string => {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
  const text = create();
  const file = openSync(`${path}.new`, 'w', 0o600);
  try {
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(`${path}.new`, path);
  return text;
};
