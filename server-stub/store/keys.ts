import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
} from 'node:crypto';
import { join } from 'node:path';
import { secretFile } from './secrets.ts';

/** What this server signs manifests and certificates with. */
export interface SigningKey {
  /** Ed25519 public key, SPKI, base64: travels to machines in site.json */
  publicKey: string;
  /** first 16 hex digits of the public key's SHA-256 */
  keyId: string;
  /** Ed25519 over the exact bytes, base64 */
  sign(text: string): string;
}

/** The key in `<data>/server.key` (PKCS 8, PEM, mode 0600), made at the first start. */
export const openSigningKey = (dataFolder: string): SigningKey => {
  const pem = secretFile(join(dataFolder, 'server.key'), () =>
    generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  );
  const privateKey: KeyObject = createPrivateKey(pem);
  const spki = createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
  return {
    publicKey: spki.toString('base64'),
    keyId: keyIdOf(spki.toString('base64')),
    sign: (text) => sign(null, Buffer.from(text), privateKey).toString('base64'),
  };
};

/** Short name of a public key (SPKI, base64): first 16 hex digits of its SHA-256. */
export const keyIdOf = (publicKey: string): string =>
  createHash('sha256').update(Buffer.from(publicKey, 'base64')).digest('hex').slice(0, 16);
