import { generateKeyPair, randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import { ImagingError } from '../errors.ts';

const generate = promisify(generateKeyPair);

export const sshKeyTypes = ['ed25519', 'ecdsa', 'rsa'] as const;
export type SshKeyType = (typeof sshKeyTypes)[number];

export interface SshKeyPair {
  /** content of `ssh_host_…_key` */
  privateKey: string;
  /** content of `ssh_host_…_key.pub` */
  publicKey: string;
}

/** ssh-keygen's default since OpenSSH 9.0 */
const RSA_BITS = 3072;

/**
 * A fresh SSH key pair without a passphrase, in OpenSSH's own format (its PROTOCOL.key; public key blobs
 * of RFC 4253 section 6.6, RFC 5656 section 3.1 and RFC 8709 section 4).
 */
export const makeSshKey = async (type: SshKeyType, comment: string): Promise<SshKeyPair> => {
  const { blob, secret, name } = await parts[type]();
  const text = comment.replaceAll(/[^\x21-\x7e]/g, '');
  const check = randomBytes(4);
  const body = Buffer.concat([check, check, secret, string(text)]);
  // unencrypted: padded to the cipher block size of "none" with 1, 2, 3 …
  const padding = Buffer.from(Array.from({ length: (8 - (body.length % 8)) % 8 }, (_, index) => index + 1));
  const file = Buffer.concat([
    Buffer.from('openssh-key-v1\0'),
    ...[string('none'), string('none'), string(''), Buffer.from([0, 0, 0, 1]), string(blob)],
    string(Buffer.concat([body, padding])),
  ]);
  const lines = file.toString('base64').replaceAll(/.{70}(?=.)/g, '$&\n');
  return {
    privateKey: `-----BEGIN OPENSSH PRIVATE KEY-----\n${lines}\n-----END OPENSSH PRIVATE KEY-----\n`,
    publicKey: `${name} ${blob.toString('base64')}${text ? ` ${text}` : ''}\n`,
  };
};

interface Parts {
  name: string;
  blob: Buffer;
  /** the private section behind the check numbers, before the comment */
  secret: Buffer;
}

const parts: Record<SshKeyType, () => Promise<Parts>> = {
  ed25519: async () => {
    const { privateKey } = await generate('ed25519');
    const { x, d } = fields(privateKey.export({ format: 'jwk' }), ['x', 'd']);
    const name = 'ssh-ed25519';
    const blob = Buffer.concat([string(name), string(x)]);
    return { name, blob, secret: Buffer.concat([blob, string(Buffer.concat([d, x]))]) };
  },
  ecdsa: async () => {
    const { privateKey } = await generate('ec', { namedCurve: 'P-256' });
    const { x, y, d } = fields(privateKey.export({ format: 'jwk' }), ['x', 'y', 'd']);
    const name = 'ecdsa-sha2-nistp256';
    // an uncompressed point: 4, x, y
    const point = Buffer.concat([Buffer.from([4]), x, y]);
    const blob = Buffer.concat([string(name), string('nistp256'), string(point)]);
    return { name, blob, secret: Buffer.concat([blob, number(d)]) };
  },
  rsa: async () => {
    const { privateKey } = await generate('rsa', { modulusLength: RSA_BITS });
    const key = fields(privateKey.export({ format: 'jwk' }), ['n', 'e', 'd', 'qi', 'p', 'q']);
    const name = 'ssh-rsa';
    const blob = Buffer.concat([string(name), number(key.e), number(key.n)]);
    const order = [key.n, key.e, key.d, key.qi, key.p, key.q].map(number);
    return { name, blob, secret: Buffer.concat([string(name), ...order]) };
  },
};

const fields = <K extends 'x' | 'y' | 'd' | 'n' | 'e' | 'p' | 'q' | 'qi'>(
  key: JsonWebKey,
  names: readonly K[],
): Record<K, Buffer> => {
  const found: Partial<Record<K, Buffer>> = {};
  for (const name of names) {
    const value = key[name];
    if (!value) throw new ImagingError('INTERNAL', `Cannot make an SSH key: it has no ${name}`);
    found[name] = Buffer.from(value, 'base64url');
  }
  return found as Record<K, Buffer>;
};

type JsonWebKey = Partial<Record<'x' | 'y' | 'd' | 'n' | 'e' | 'p' | 'q' | 'qi', string>>;

/** RFC 4251 section 5: length, then bytes. */
const string = (value: string | Buffer): Buffer => {
  const bytes = Buffer.from(value);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
};

/** RFC 4251 section 5, mpint of a positive number: no leading zeros, but one where the top bit is set. */
const number = (value: Buffer): Buffer => {
  const start = value.findIndex((byte) => byte !== 0);
  const bytes = start < 0 ? Buffer.alloc(0) : value.subarray(start);
  return string((bytes[0] ?? 0) & 0x80 ? Buffer.concat([Buffer.alloc(1), bytes]) : bytes);
};
