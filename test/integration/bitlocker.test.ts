import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { writeAt } from '../../agent/disk/device-io.ts';
import { run } from '../../agent/process/run.ts';
import type { BitLockerVolume } from '../../agent/volumes/bitlocker/on-disk.ts';
import { readBitLocker } from '../../agent/volumes/bitlocker/read.ts';
import { suspendedKey, unlockedKey } from '../../agent/volumes/bitlocker/unlock.ts';
import { lookAtVolumes, type Seen } from '../../agent/volumes/look.ts';
import { fillWindows, makeNtfs, type NtfsImage } from './bitlocker-ntfs.ts';
import {
  type BitLockerRecipe,
  encryptVolume,
  OTHER_RECOVERY_PASSWORD,
  RECOVERY_PASSWORD,
} from './bitlocker-volume.ts';
import { attachLoop, hashOf, MIB, partitionOn } from './loop-device.ts';

const { signal } = new AbortController();
const SIZE = 24 * MIB;
const PASSWORD = 'Grüße, "Welt"';

let folder = '';
let ntfs: NtfsImage;

test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'bitlocker-'));
  ntfs = await makeNtfs(join(folder, 'ntfs'), SIZE, fillWindows);
});

test.after.always(async () => {
  if (folder) await rm(folder, { recursive: true, force: true });
});

const read = async (file: string): Promise<BitLockerVolume> => {
  const volume = await readBitLocker(file, SIZE);
  if (typeof volume === 'string') throw new Error(volume);
  return volume;
};

/** The clear NTFS by dislocker. */
const clearBy = async (file: string, how: string): Promise<Buffer> => {
  const mount = await mkdtemp(join(folder, 'mount-'));
  await run('dislocker-fuse', ['-q', '-r', how, '-V', file, '--', mount]);
  try {
    return await readFile(join(mount, 'dislocker-file'));
  } finally {
    await run('umount', [mount]);
  }
};

/** cryptsetup's exit code: 0 where this opens the volume. */
const tried = async (file: string, key: string): Promise<number> => {
  const args = ['open', '--type', 'bitlk', '--test-passphrase', '--key-file', '-', file];
  return (await run('cryptsetup', args, { input: key, okExitCodes: [0, 1, 2] })).exitCode;
};

const ciphers = { 32768: 'cbc-elephant', 32770: 'cbc-eboiv', 32772: 'xts-plain64' } as const;

for (const encryption of [0x8000, 0x8002, 0x8004] as const) {
  const name = ciphers[encryption];
  test.serial(
    `aes-${name}: dislocker and cryptsetup read the volume that we make, and we read the same`,
    async (t) => {
      const original = await readFile(ntfs.file);
      const [suspended, locked] = [join(folder, 'suspended'), join(folder, 'locked')];
      const open = await encryptVolume(ntfs, { encryption, tpm: true, clearKey: true });
      await writeFile(suspended, open.volume);
      t.true((await clearBy(suspended, '-c')).equals(original));
      t.regex((await run('cryptsetup', ['bitlkDump', suspended])).stdout, /VMK protected with clear key/);
      const key = suspendedKey(await read(suspended));
      t.is(key?.cipher, `aes-${name}`);
      t.deepEqual(key?.key, dense(open.keys, encryption));

      const made = await encryptVolume(ntfs, { encryption, recoveryPassword: RECOVERY_PASSWORD });
      await writeFile(locked, made.volume);
      t.true((await clearBy(locked, `-p${RECOVERY_PASSWORD}`)).equals(original));
      t.regex((await run('cryptsetup', ['bitlkDump', locked])).stdout, new RegExp(`aes-${name}`));
      t.is(await tried(locked, RECOVERY_PASSWORD), 0);
      t.not(await tried(locked, OTHER_RECOVERY_PASSWORD), 0);
      const volume = await read(locked);
      t.is(suspendedKey(volume), null);
      t.deepEqual(
        (await unlockedKey(volume, [RECOVERY_PASSWORD], signal))?.key,
        dense(made.keys, encryption),
      );
    },
  );
}

test.serial(
  'a volume opens with its recovery password, however it is written, and with a password beyond ASCII',
  async (t) => {
    const file = join(folder, 'password');
    const made = await encryptVolume(ntfs, {
      ...{ encryption: 0x8004, tpm: true, recoveryPassword: RECOVERY_PASSWORD, password: PASSWORD },
    });
    await writeFile(file, made.volume);
    const volume = await read(file);
    t.deepEqual(
      volume.protectors.map(({ kind }) => kind),
      ['TPM', 'recovery password', 'password'],
    );
    t.is(await unlockedKey(volume, [OTHER_RECOVERY_PASSWORD], signal), null);
    for (const text of [RECOVERY_PASSWORD.replaceAll('-', ' '), PASSWORD]) {
      t.deepEqual((await unlockedKey(volume, ['wrong', text], signal))?.key, made.keys, text);
    }
  },
);

/** As dm-crypt takes them: without what the diffuser's keys leave unused. */
const dense = (keys: Buffer, encryption: number): Buffer =>
  encryption === 0x8000 ? Buffer.concat([keys.subarray(0, 16), keys.subarray(32, 48)]) : keys;

const lookAt = async (
  path: string,
  { keys = [], raw = false }: { keys?: string[]; raw?: boolean } = {},
): Promise<Seen | undefined> => {
  await using held = new AsyncDisposableStack();
  return (await lookAtVolumes([partitionOn(path, SIZE, 'p3')], { signal, keys, raw, held }))[0];
};

/** A device with a volume of this recipe, and changes to its bytes. */
const deviceOf = async (
  t: ExecutionContext,
  recipe: Partial<BitLockerRecipe>,
  change: (volume: Buffer) => void = () => undefined,
): Promise<string> => {
  const { volume } = await encryptVolume(ntfs, { encryption: 0x8004, ...recipe });
  change(volume);
  const { path } = await attachLoop(t, SIZE);
  await writeAt(path, [{ offset: 0, bytes: volume }]);
  return path;
};

test.serial(
  'a locked volume is refused with what to do and the size of a raw copy, and whole when asked for',
  async (t) => {
    const path = await deviceOf(t, { tpm: true, recoveryPassword: RECOVERY_PASSWORD });
    const before = await hashOf(path);
    const refused = await t.throwsAsync(lookAt(path), { code: 'UNLOCK_FAILED' });
    t.regex(
      refused?.message ?? '',
      /^Cannot capture p3: .*BitLocker.*no key \(what opens it: TPM, recovery password\).*manage-bde -protectors -disable.*25165824 bytes/,
    );
    const wrong = await t.throwsAsync(lookAt(path, { keys: [OTHER_RECOVERY_PASSWORD] }), {
      code: 'UNLOCK_FAILED',
    });
    t.regex(wrong?.message ?? '', /none of the task's keys opens it/);
    for (const keys of [[], ['wrong']]) {
      t.like(await lookAt(path, { raw: true, keys }), { method: 'raw', source: path, decryptedFrom: null });
    }
    t.is(await hashOf(path), before);
  },
);

const CLEAR = { clearKey: true } as const;
const refusals: Record<string, [Partial<BitLockerRecipe>, RegExp, ((volume: Buffer) => void)?]> = {
  'that a TPM alone opens': [{ tpm: true }, /neither a recovery password nor a password/],
  'being encrypted': [{ ...CLEAR, state: [2, 4], encryptedBytes: 8 * MIB }, /being encrypted or decrypted/],
  'whose decryption is paused': [
    { ...CLEAR, state: [5, 1], encryptedBytes: 8 * MIB },
    /paused before its end/,
  ],
  'about to be decrypted': [{ ...CLEAR, state: [4, 1] }, /about to be decrypted/],
  'encrypted in part': [{ ...CLEAR, encryptedBytes: 20 * MIB }, /20971520 bytes of its 25165824/],
  'that claims more than its partition': [{ ...CLEAR, encryptedBytes: 25 * MIB }, /26214400 bytes of its/],
  'encrypted on write': [
    CLEAR,
    /as it is written to/,
    (volume) => void volume.write('3b4da89280dd0e4d9e4eb1e3284eaed8', 160, 'hex'),
  ],
  'of Windows Vista': [CLEAR, /format is that of Windows Vista/, (volume) => void volume.writeUInt8(0x52, 1)],
  'without sound metadata': [
    CLEAR,
    /no copy of its metadata is sound/,
    (volume) => {
      for (const place of ntfs.metadata) volume.writeUInt8(volume.readUInt8(place + 120) ^ 1, place + 120);
    },
  ],
};

for (const [which, [recipe, why, change]] of Object.entries(refusals)) {
  test.serial(`a volume ${which} is refused, never half read`, async (t) => {
    const path = await deviceOf(t, recipe, change);
    const error = await t.throwsAsync(lookAt(path, { keys: [RECOVERY_PASSWORD] }), { code: 'UNLOCK_FAILED' });
    t.regex(error?.message ?? '', why);
    t.is((await lookAt(path, { raw: true }))?.method, 'raw');
  });
}

test.serial('BitLocker To Go with its FAT in front is refused', async (t) => {
  const path = await deviceOf(t, CLEAR, (volume) => {
    // its first sector is FAT32's, and has GUID and places elsewhere
    volume.copy(volume, 424, 160, 200);
    volume.fill(0, 160, 200);
    volume.write('MSWIN4.1', 3, 'latin1');
  });
  const error = await t.throwsAsync(lookAt(path), { code: 'UNLOCK_FAILED' });
  t.regex(error?.message ?? '', /To Go/);
});

test.serial('one sound copy of the metadata is enough', async (t) => {
  const { volume, keys } = await encryptVolume(ntfs, { encryption: 0x8004, clearKey: true });
  for (const place of ntfs.metadata.slice(0, 2)) volume.fill(0xff, place, place + 4096);
  const file = join(folder, 'damaged');
  await writeFile(file, volume);
  t.deepEqual(suspendedKey(await read(file))?.key, keys);
});
