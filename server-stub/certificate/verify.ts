import { createPublicKey, verify } from 'node:crypto';
import { ImagingError } from '../../agent/errors.ts';
import { keyIdOf } from '../store/keys.ts';
import { canonicalJson } from './canonical.ts';
import { type CertificateBody, certificateBodySchema, certificateSchema } from './certificate.ts';

/**
 * Check a certificate without any server: that all of it is as it was signed, and by the key that is trusted. `trusted`: public key (SPKI,
 * base64); the one that the file itself brings proves nothing.
 *
 * @throws ImagingError CERTIFICATE_INVALID
 */
export const verifyCertificate = (text: string, trusted: string): CertificateBody => {
  const { certificate, signature } = parsed(text);
  if (signature.publicKey !== trusted || signature.keyId !== keyIdOf(trusted)) {
    throw invalid(`it names key ${signature.keyId}, the trusted key is ${keyIdOf(trusted)}`);
  }
  if (!isSigned(canonicalJson(certificate), trusted, signature.value)) {
    throw invalid('its signature does not fit its content: it was altered');
  }
  const body = certificateBodySchema.safeParse(certificate);
  if (!body.success) throw invalid('it is signed, but of a form that this version does not know');
  return body.data;
};

const parsed = (text: string) => {
  try {
    return certificateSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw invalid('it is no certificate of this form', cause);
  }
};

const isSigned = (text: string, publicKey: string, value: string): boolean => {
  try {
    const key = createPublicKey({ key: Buffer.from(publicKey, 'base64'), format: 'der', type: 'spki' });
    return (
      key.asymmetricKeyType === 'ed25519' &&
      verify(null, Buffer.from(text), key, Buffer.from(value, 'base64'))
    );
  } catch (cause) {
    throw invalid('the trusted key is no Ed25519 key', cause);
  }
};

const invalid = (reason: string, cause?: unknown): ImagingError =>
  new ImagingError('CERTIFICATE_INVALID', `Cannot trust this certificate: ${reason}`, { cause });
