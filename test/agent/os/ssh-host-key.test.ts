import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { makeSshKey, sshKeyTypes } from '../../../agent/os/ssh-host-key.ts';
import { run } from '../../../agent/process/run.ts';

const bits = { ed25519: 256, ecdsa: 256, rsa: 3072 };

for (const type of sshKeyTypes) {
  test(`${type}: ssh-keygen reads the key, gets the same public half from it, and signs with it`, async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'ssh-key-'));
    t.teardown(() => rm(folder, { recursive: true, force: true }));
    const path = join(folder, 'key');
    const { privateKey, publicKey } = await makeSshKey(type, 'root@lab-7\n evil');
    await writeFile(path, privateKey, { mode: 0o600 });
    await writeFile(`${path}.pub`, publicKey);
    const derived = (await run('ssh-keygen', ['-y', '-f', path])).stdout;
    t.is(derived.split(' ').slice(0, 2).join(' '), publicKey.split(' ').slice(0, 2).join(' '));
    t.is(publicKey.trim().split('\n').length, 1);
    const { stdout } = await run('ssh-keygen', ['-l', '-f', `${path}.pub`]);
    t.is(Number(stdout.split(' ')[0]), bits[type]);
    t.regex(stdout, /root@lab-7/);
    await writeFile(join(folder, 'text'), 'hello');
    await run('ssh-keygen', ['-Y', 'sign', '-f', path, '-n', 'file', join(folder, 'text')]);
    const signed = await run('sh', [
      '-c',
      'ssh-keygen -Y check-novalidate -n file -s "$1.sig" < "$1"',
      'sh',
      join(folder, 'text'),
    ]);
    t.regex(signed.stdout, /Good "file" signature/);
    const other = await makeSshKey(type, '');
    t.not(other.privateKey, privateKey);
  });
}
