import { createCipheriv } from 'node:crypto';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../../agent/process/run.ts';

export interface EncryptOptions {
  /** file with the clear side, whole sectors */
  clear: string;
  passphrase: string;
  uuid: string;
}

const SECTOR = 4096;
const MIB = 1024 * 1024;
/** cryptsetup's default for a new LUKS 2: header and keyslots */
const DATA_OFFSET = 16 * MIB;

/**
 * LUKS 2 as cryptsetup makes it (aes-xts-plain64, Argon2id with little memory), with the clear side in it. The data is
 * encrypted here, by the volume key that cryptsetup tells: a mapping needs device-mapper, which this kernel may lack.
 * What is zero is encrypted too.
 */
export const encryptInto = async (
  node: string,
  { clear, passphrase, uuid }: EncryptOptions,
): Promise<void> => {
  const cost = ['--pbkdf', 'argon2id', '--pbkdf-memory', '32768', '--pbkdf-parallel', '1'];
  const cipher = ['--cipher', 'aes-xts-plain64', '--key-size', '512', '--sector-size', String(SECTOR)];
  const batch = ['--batch-mode', '--key-file', '-'];
  const input = passphrase;
  await run(
    'cryptsetup',
    [
      ...['luksFormat', '--type', 'luks2', '--uuid', uuid],
      ...[...cipher, ...cost, '--pbkdf-force-iterations', '4', ...batch, node],
    ],
    { input },
  );
  const folder = await mkdtemp(join(tmpdir(), 'fog-luks-'));
  try {
    const file = join(folder, 'key');
    const dump = ['luksDump', '--dump-volume-key', '--volume-key-file', file, ...batch, node];
    await run('cryptsetup', dump, { input });
    await encrypt(clear, node, await readFile(file));
  } finally {
    await rm(folder, { recursive: true });
  }
};

const encrypt = async (from: string, to: string, key: Buffer): Promise<void> => {
  await using source = await open(from, 'r');
  await using target = await open(to, 'r+');
  const block = Buffer.alloc(4 * MIB);
  const tweak = Buffer.alloc(16);
  for (let at = 0; ; ) {
    const { bytesRead } = await source.read(block, 0, block.length, at);
    if (bytesRead === 0) break;
    if (bytesRead % SECTOR !== 0) throw new Error(`${from} ends in the middle of a sector`);
    for (let offset = 0; offset < bytesRead; offset += SECTOR) {
      // plain64 counts sectors of 512 bytes, whatever the encryption's own sector size
      tweak.writeBigUInt64LE(BigInt((at + offset) / 512));
      const sector = block.subarray(offset, offset + SECTOR);
      createCipheriv('aes-256-xts', key, tweak).update(sector).copy(sector);
    }
    await target.write(block, 0, bytesRead, DATA_OFFSET + at);
    at += bytesRead;
  }
  await target.sync();
};
