import { randomBytes } from 'node:crypto';
import { hasCode } from '../errors.ts';
import { type Changes, noChanges, sha256Of } from './change.ts';
import { makeSshKey, type SshKeyType, sshKeyTypes } from './ssh-host-key.ts';
import {
  kindInside,
  listInside,
  openInside,
  readInside,
  removeInside,
  type Tree,
  writeInside,
} from './tree.ts';

export interface LinuxWish {
  /** null: keep the name */
  hostname: string | null;
  /** fresh machine-id, SSH host keys, no seed or secret of the machine that was captured */
  fresh: boolean;
}

const MAX_HOSTS = 1024 * 1024;
const MAX_NAME = 4096;

/**
 * Make a copied Linux another machine: name, machine-id, SSH host keys, entropy seed. `root` is where in
 * the tree its `/` begins. What cannot be done is told in `unmet`, and the rest is done.
 */
export const changeLinux = async (tree: Tree, root: string, wish: LinuxWish): Promise<Changes> => {
  const changes = noChanges();
  const inRoot = (path: string): string => `${root}/${path}`;
  const trying = async (work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      if (!hasCode(error, 'OPTION_REFUSED') || !(error instanceof Error)) throw error;
      changes.unmet.push(error.message);
    }
  };
  const write = async (path: string, bytes: string, mode: number): Promise<void> => {
    await writeInside(tree, inRoot(path), Buffer.from(bytes), mode);
    changes.files.push({ path: inRoot(path), sha256: sha256Of(Buffer.from(bytes)) });
  };
  const remove = async (path: string): Promise<boolean> => {
    if (!(await removeInside(tree, inRoot(path)))) return false;
    changes.files.push({ path: inRoot(path), sha256: null });
    return true;
  };
  const read = async (path: string, max: number): Promise<string | null> =>
    (await readInside(tree, inRoot(path), max))?.toString('utf8') ?? null;

  const { hostname } = wish;
  if (hostname !== null) {
    await trying(async () => {
      const old = ((await read('etc/hostname', MAX_NAME)) ?? '').trim();
      await write('etc/hostname', `${hostname}\n`, 0o644);
      changes.evidence.push({ what: 'hostname', proof: `/etc/hostname is ${hostname}` });
      const hosts = await read('etc/hosts', MAX_HOSTS);
      if (hosts === null || hosts.length >= MAX_HOSTS) return;
      const renamed = renameInHosts(hosts, old, hostname);
      if (renamed !== hosts) await write('etc/hosts', renamed, 0o644);
    });
  }
  if (!wish.fresh) return changes;

  await trying(async () => {
    const old = ((await read('etc/machine-id', MAX_NAME)) ?? '').trim();
    // empty, "uninitialized" or missing: made on purpose, and the system fills it in at its first start
    if (!/^[0-9a-f]{32}$/i.test(old)) {
      changes.evidence.push({ what: 'machine-id', proof: '/etc/machine-id holds none: made at first start' });
      return;
    }
    const id = makeMachineId();
    await write('etc/machine-id', `${id}\n`, 0o444);
    if ((await kindInside(tree, inRoot('var/lib/dbus/machine-id'))) === 'file') {
      await write('var/lib/dbus/machine-id', `${id}\n`, 0o644);
    }
    changes.evidence.push({ what: 'machine-id', proof: `/etc/machine-id is ${id}, which was made now` });
  });

  const name = hostname ?? ((await read('etc/hostname', MAX_NAME)) ?? '').trim();
  const made: SshKeyType[] = [];
  for (const type of sshKeyTypes) {
    await trying(async () => {
      const path = `etc/ssh/ssh_host_${type}_key`;
      if ((await kindInside(tree, inRoot(path))) === 'none') return;
      const { privateKey, publicKey } = await makeSshKey(type, name ? `root@${name}` : '');
      await write(path, privateKey, 0o600);
      await closeToOthers(tree, inRoot(path));
      await write(`${path}.pub`, publicKey, 0o644);
      made.push(type);
    });
  }
  // OpenSSH 10 has no DSA; a key that every copy knows is worse than none
  for (const suffix of ['', '.pub']) await remove(`etc/ssh/ssh_host_dsa_key${suffix}`);
  if (made.length > 0) {
    changes.evidence.push({ what: 'SSH host keys', proof: `fresh ones: ${made.join(', ')}` });
  }
  changes.warnings.push(...(await otherKeys(tree, inRoot('etc/ssh'), inRoot('etc/dropbear'))));

  const removed: string[] = [];
  if (await remove('var/lib/systemd/random-seed')) removed.push('random-seed');
  if ((await listInside(tree, inRoot('etc/credstore.encrypted'))).length > 0) {
    changes.warnings.push('credential.secret of systemd stays: /etc/credstore.encrypted needs it');
  } else if (await remove('var/lib/systemd/credential.secret')) removed.push('credential.secret');
  if (removed.length > 0) {
    changes.evidence.push({
      what: 'secrets of the captured machine',
      proof: `removed: ${removed.join(', ')}`,
    });
  }
  if ((await listInside(tree, inRoot('var/lib'))).length === 0) {
    changes.warnings.push('/var is another filesystem: what it keeps of the captured machine stays');
  }
  return changes;
};

/** A random UUID of version 4 without dashes, as systemd-machine-id-setup(1) makes one. */
const makeMachineId = (): string => {
  const bytes = randomBytes(16);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return bytes.toString('hex');
};

/** sshd refuses private keys that others may read; 0640 with a group of its own is Red Hat's. */
const closeToOthers = async (tree: Tree, path: string): Promise<void> => {
  await using file = await openInside(tree, path, { write: true });
  if (!file) return;
  const { mode } = await file.handle.stat();
  if ((mode & 0o137) === 0) return;
  await file.handle.chmod(0o600);
  await file.handle.sync();
};

const otherKeys = async (tree: Tree, ssh: string, dropbear: string): Promise<string[]> => {
  const warnings: string[] = [];
  for (const name of await listInside(tree, ssh)) {
    const known = /^ssh_host_(ed25519|ecdsa|rsa)_key(\.pub)?$/.test(name);
    if (/^ssh_host_.*_key/.test(name) && !known) {
      warnings.push(`/etc/ssh/${name.slice(0, 80)} is the captured machine’s and stays`);
    }
  }
  if ((await listInside(tree, dropbear)).some((name) => /_host_key$/.test(name))) {
    warnings.push('keys of dropbear in /etc/dropbear are the captured machine’s and stay');
  }
  return warnings.slice(0, 5);
};

/**
 * The new name where the old one stood, short or with a domain, on lines of loopback addresses (Debian
 * writes 127.0.1.1). Nothing else of the file changes. Pure.
 */
export const renameInHosts = (text: string, old: string, name: string): string => {
  const short = old.split('.')[0] ?? '';
  if (short === '' || short.toLowerCase() === 'localhost') return text;
  const newShort = name.split('.')[0] ?? name;
  return text
    .split('\n')
    .map((line) => {
      if (!/^\s*(127\.[\d.]+|::1)\s/.test(line)) return line;
      const comment = line.indexOf('#');
      const end = comment < 0 ? line.length : comment;
      // words behind white space: the address is the first and stays
      const names = line.slice(0, end).replaceAll(/(?<=\s)[^\s]+/g, (word) => {
        const lower = word.toLowerCase();
        if (lower === old.toLowerCase()) return name;
        if (lower === short.toLowerCase()) return newShort;
        if (!lower.startsWith(`${short.toLowerCase()}.`)) return word;
        return name.includes('.') ? name : `${name}${word.slice(short.length)}`;
      });
      return names + line.slice(end);
    })
    .join('\n');
};
