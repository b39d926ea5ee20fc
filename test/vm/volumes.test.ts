import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { driverFor } from '../../agent/filesystem/index.ts';
import { PROJECT } from '../../initramfs/build/lists.ts';
import { buildInitramfs } from '../../initramfs/build.ts';
import type { MachineOptions } from '../../scripts/lib/vm/machine.ts';
import { hashOf } from '../integration/loop-device.ts';
import { type GuestRun, runGuest } from './run-guest.ts';
import { makeBitLocker, makeSource, ROOT_FILES } from './volumes-disks.ts';

const MIB = 1024 * 1024;
/** of writeTree */
const ALL_FILES = String(ROOT_FILES - ROOT_FILES / 4);
/** of fillWindows */
const WINDOWS_FILES = '20';
let facts: GuestRun['facts'] = new Map();
let exit: GuestRun['exit'] | undefined;
let folder = '';
const before: Record<string, string> = {};
const files: Record<string, string> = {};
/** in the order of attachment; what nothing may write to comes first */
const SOURCES = ['SRC', 'BLS0', 'BLS2', 'BLS4', 'BLL4'];
const TARGETS = ['DST', 'DST2', 'DST3', 'LUK2', 'LUK1'];

test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vm-volumes-'));
  const out = join(PROJECT, 'out/test/volumes-guest');
  const entries = {
    main: join(import.meta.dirname, 'volumes-guest.ts'),
    killed: join(import.meta.dirname, 'volumes-killed.ts'),
  };
  await buildInitramfs({ out, entries });
  for (const [name, size] of Object.entries({ DST: 1400, DST2: 160, DST3: 24, LUK2: 96, LUK1: 80 })) {
    files[name] = join(folder, name);
    await writeFile(files[name], '');
    await truncate(files[name], size * MIB);
  }
  files['SRC'] = join(folder, 'SRC');
  await makeSource(files['SRC']);
  Object.assign(files, await makeBitLocker(folder));
  for (const name of [...SOURCES, 'NTFS']) before[name] = await hashOf(files[name] ?? '');
  const machine: MachineOptions = {
    memory: 1024,
    kernel: {
      image: join(out, 'vmlinuz'),
      initrd: join(out, 'initrd.img'),
      commandLine: 'console=ttyS0',
    },
    disks: [...SOURCES, ...TARGETS].map((serial) => ({ file: files[serial] ?? '', serial })),
  };
  ({ exit, facts } = await runGuest(machine, { timeoutMs: 20 * 60_000 }));
});

test.after.always(async () => {
  if (folder) await rm(folder, { recursive: true, force: true });
});

test('the guest came to its end, and the source was read only', async (t) => {
  t.is(exit?.reason, 'guest-shutdown');
  for (const [at, name] of SOURCES.entries()) {
    t.is(exit?.disks[at]?.writes, 0, name);
    t.is(await hashOf(files[name] ?? ''), before[name] ?? '', name);
  }
});

test('LVM: used blocks by logical volume', (t) => {
  const [group] = facts.get('looks');
  t.like(group, { method: 'used', reason: '', os: 'Debian', type: 'LVM2_member', replayed: false });
  const xfs = driverFor('xfs') ? 'used' : 'raw';
  t.deepEqual(
    group.contains.map(({ name, role, method }: Record<string, string>) => [name, role, method]),
    [
      ['vg/root', 'os', 'used'],
      ['vg/wide', 'data', 'used'],
      ['vg/swap', 'swap', 'used'],
      ['vg/var', 'data', xfs],
    ],
  );
});

test('dirty ext4, XFS, btrfs: the journal is replayed beside the disk, and used blocks suffice', (t) => {
  const looks = facts.get('looks').slice(1);
  // the log of XFS is 64 MiB of its 320
  for (const [at, [type, most]] of Object.entries({ ext4: 40, xfs: 110, btrfs: 100 }).entries()) {
    const used = driverFor(type) !== null;
    t.like(looks[at], { type, replayed: used, method: used ? 'used' : 'raw' });
    if (used) t.true(looks[at].used < most * MIB, `${type}: ${looks[at].used}`);
  }
  const expected = ['ext4', 'xfs', 'btrfs'].filter((type) => driverFor(type));
  t.deepEqual(
    facts.get('deploy').results,
    expected.map((type) => [type, 0, `${ALL_FILES} late`]),
  );
  t.deepEqual(facts.get('replay xfs'), ['xfs', 0, `${ALL_FILES} late`]);
  t.deepEqual(facts.get('replay btrfs'), ['btrfs', 0, `${ALL_FILES} late`]);
});

test('LVM on a larger partition: physical volume, logical volume and filesystem grow; all are sound, all files there', (t) => {
  const deploy = facts.get('deploy');
  t.is(deploy.error, undefined, deploy.message);
  t.is(deploy.grown.warning, null);
  t.deepEqual(deploy.grown.proofs.map(({ what }: { what: string }) => what).slice(0, 4), [
    'vg/root fills its volume group',
    'volume group vg is sound',
    'vg/root is sound',
    'vg/wide is sound',
  ]);
  t.is(deploy.free, '0 1');
  const sizes = Object.fromEntries(deploy.inside.map(([name, size]: [string, number]) => [name, size]));
  // 520 - 64 - 64 - 16 - 320 MiB were free, less the first for metadata and what fills no extent
  t.is(sizes['root'], 64 + 300 + 52);
  t.like(sizes, { wide: 64, var: 320 });
  for (const [name, , exitCode, found] of deploy.inside) t.deepEqual([exitCode, found], [0, ALL_FILES], name);
});

test('a snapshot without room is no snapshot: the filesystem is kept whole, as it lies there', (t) => {
  t.like(facts.get('too little memory'), { method: 'raw', replayed: false, used: 64 * MIB });
  t.regex(
    facts.get('too little memory').reason,
    /journal could not be replayed in memory: .*too little memory/,
  );
  t.is(facts.get('overflow').error, 'TOOL_FAILED');
  t.regex(facts.get('overflow').message, /Invalid|Overflow/);
});

test('LUKS: whole without a key, refused with a wrong one, used ciphertext with the right one, LVM inside too', (t) => {
  t.is(facts.get('make encrypted').error, undefined, facts.get('make encrypted').message);
  for (const one of facts.get('no key')) {
    t.like(one, { method: 'raw', reason: 'it is encrypted (LUKS), and the task brings no key' });
  }
  t.is(facts.get('wrong key').error, 'UNLOCK_FAILED');
  const { looks, results, clear, error, message } = facts.get('with key');
  t.is(error, undefined, message);
  t.like(looks[0], { method: 'used', type: 'crypto_LUKS' });
  t.true(looks[0].used < 60 * MIB);
  t.deepEqual(
    looks.map(({ contains }: { contains: Record<string, unknown>[] }) =>
      contains.map(({ kind, name, method }) => [kind, kind === 'luks' ? '' : name, method]),
    ),
    [
      [['luks', '', 'used']],
      [
        ['luks', '', 'used'],
        ['lvm', 'hidden/root', 'used'],
      ],
    ],
  );
  t.deepEqual(results, [
    [0, ALL_FILES],
    [0, ALL_FILES],
  ]);
  t.is(clear, 0);
  t.deepEqual(facts.get('encrypted hashes'), facts.get('make encrypted'));
});

const CLEAR = 'the image holds the clear content of its BitLocker volume';

test('BitLocker that is suspended: the used blocks of its clear NTFS without a key, with every cipher', (t) => {
  for (const serial of ['BLS0', 'BLS2', 'BLS4']) {
    const look = facts.get(`bitlocker ${serial}`);
    t.is(look.error, undefined, look.message);
    t.like(look, { method: 'used', type: 'ntfs', label: 'Daten', decryptedFrom: 'bitlocker', readOnly: '1' });
    t.is(look.hash, before['NTFS'], `${serial}: the clear side is the NTFS that was encrypted`);
    t.true(look.used > 2 * MIB && look.used < 12 * MIB, String(look.used));
    t.true(look.warnings.join().startsWith(`${serial}: ${CLEAR}`), look.warnings.join());
  }
});

test('BitLocker deployed: a clean NTFS with every file, and nothing of BitLocker is left where it was before', (t) => {
  t.deepEqual(facts.get('bitlocker deployed'), {
    ...{ type: 'ntfs', ambiguous: false, exitCode: 0, cleared: true, files: WINDOWS_FILES },
  });
});

test('BitLocker that is locked: refused without a key and with a wrong one, whole when asked for, clear with the recovery password', (t) => {
  const none = facts.get('bitlocker no key');
  t.is(none.error, 'UNLOCK_FAILED');
  t.regex(none.message, /BLL4: .*brings no key.*manage-bde.*25165824 bytes/);
  t.is(facts.get('bitlocker wrong key').error, 'UNLOCK_FAILED');
  t.regex(facts.get('bitlocker wrong key').message, /none of the task's keys opens it/);
  const raw = facts.get('bitlocker raw');
  t.like(raw, {
    method: 'raw',
    type: 'BitLocker',
    decryptedFrom: null,
    used: 24 * MIB,
    hash: before['BLL4'],
  });
  const unlocked = facts.get('bitlocker unlocked');
  t.like(unlocked, { method: 'used', type: 'ntfs', decryptedFrom: 'bitlocker', hash: before['NTFS'] });
  t.is(facts.get('bitlocker cryptsetup'), before['NTFS'], 'what cryptsetup opens is the same');
});

test('a key is on no command line and in no environment', (t) => {
  const { keySeen, looked } = facts.get('key seen');
  t.is(keySeen, 0);
  t.true(looked > 200);
});

test('an agent is killed in the middle of a capture: the next task takes down what it left, and looks again', (t) => {
  const { alive, left, refusal, lines, after, methods, error, message } = facts.get('killed');
  t.is(error, undefined, message);
  t.is(alive, 0, 'while it runs, what it works with is its own');
  t.deepEqual(left.slice(0, 2), ['mount', 'mount']);
  t.deepEqual(left.slice(-2), ['memory', 'memory']);
  t.deepEqual(left.slice(2, -2).toSorted(), ['loop', 'loop', 'loop', 'mapping', 'mapping', 'mapping']);
  t.regex(refusal, /an agent that was killed left .*\/mount-.*fog-.*\/dev\/loop/);
  t.is(lines.filter((line: string) => line.includes('taken down')).length, left.length + 4, lines.join('\n'));
  t.is(after, '');
  t.deepEqual(methods, ['used', 'used', 'used']);
});

test('nothing stays behind, after success, failure and cancel', (t) => {
  t.is(facts.get('cancelled').error, 'TASK_CANCELLED');
  for (const name of ['after deploy', 'after cancel', 'after all']) t.is(facts.get(name), '', name);
});
