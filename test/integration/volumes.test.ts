import { randomBytes } from 'node:crypto';
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { writeAt } from '../../agent/disk/device-io.ts';
import { run } from '../../agent/process/run.ts';
import { inspectVolumes } from '../../agent/volumes/inspect.ts';
import { lookAtVolumes } from '../../agent/volumes/look.ts';
import { attachLoop, hashOf, MIB, partitionOn } from './loop-device.ts';

const { signal } = new AbortController();
const options = { signal, keys: [], raw: false, replay: false };

test.serial(
  'LUKS without a key is kept whole and says so; a RAID member is refused, or whole when asked for',
  async (t) => {
    const luks = await attachLoop(t, 32 * MIB);
    const format = [
      'luksFormat',
      '--batch-mode',
      '--type',
      'luks2',
      '--pbkdf',
      'pbkdf2',
      '--pbkdf-force-iterations',
      '1000',
    ];
    await run('cryptsetup', [...format, '--key-file', '-', luks.path], { input: 'secret' });
    const [locked] = await inspectVolumes([partitionOn(luks.path, 32 * MIB)], options);
    t.like(locked, { method: 'raw', reason: 'it is encrypted (LUKS), and the task brings no key' });
    t.is(locked?.filesystem?.type, 'crypto_LUKS');

    const raid = await attachLoop(t, 32 * MIB);
    await writeAt(raid.path, raidBytes());
    const refused = await t.throwsAsync(inspectVolumes([partitionOn(raid.path, 32 * MIB)], options), {
      code: 'LAYOUT_UNSUPPORTED',
    });
    t.regex(refused?.message ?? '', /linux_raid_member/);
    const [member] = await inspectVolumes([partitionOn(raid.path, 32 * MIB)], { ...options, raw: true });
    t.regex(member?.reason ?? '', /never start its copy beside the original/);
  },
);

test.serial('without device-mapper a dirty ext4 is kept whole, and both reasons are told', async (t) => {
  const { path, file } = await attachLoop(t, 64 * MIB);
  await run('mkfs.ext4', ['-q', path]);
  const crashed = await attachLoop(t, 64 * MIB);
  const folder = await mkdtemp(join(tmpdir(), 'dirty-'));
  await run('mount', [path, folder]);
  await writeFile(join(folder, 'a'), randomBytes(MIB));
  await run('sync', ['--file-system', folder]);
  await copyFile(file, crashed.file);
  await run('umount', [folder]);
  await rm(folder, { recursive: true });
  await run('blockdev', ['--flushbufs', crashed.path]);
  const before = await hashOf(crashed.path);
  await using held = new AsyncDisposableStack();
  const [look] = await lookAtVolumes([partitionOn(crashed.path, 64 * MIB)], {
    signal,
    keys: [],
    raw: false,
    held,
  });
  t.is(look?.method, 'raw');
  t.regex(look?.reason ?? '', /was not unmounted cleanly.*; its journal could not be replayed in memory: /);
  t.is(look?.source, crashed.path);
  t.is(await hashOf(crashed.path), before);
  t.notRegex((await run('findmnt', ['--list', '--output', 'TARGET'])).stdout, /snapshot-/);
});

/** Superblock 1.2 of md, as far as libblkid looks: 4 KiB from the start. */
const raidBytes = () => {
  const superblock = Buffer.alloc(4096);
  superblock.writeUInt32LE(0xa92b4efc, 0);
  superblock.writeUInt32LE(1, 4);
  randomBytes(16).copy(superblock, 16);
  superblock.writeBigUInt64LE(8n, 144);
  superblock.writeUInt32LE(2, 92);
  let sum = 0n;
  for (let at = 0; at < 256; at += 4) sum += at === 216 ? 0n : BigInt(superblock.readUInt32LE(at));
  superblock.writeUInt32LE(Number(((sum & 0xffffffffn) + (sum >> 32n)) & 0xffffffffn), 216);
  return [{ offset: 4096, bytes: superblock }];
};
