import { EventEmitter } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import type { Disk } from '../../../agent/disk/disk.ts';
import { stopKeyPressed } from '../../../agent/tui/key.ts';
import { chooseDisks } from '../../../agent/wipe/choose.ts';
import { countDown } from '../../../agent/wipe/countdown.ts';

const diskOf = (name: string, more: Partial<Disk> = {}): Disk => ({
  ...{ name, path: `/dev/${name}`, model: 'M', serial: `S-${name}`, size: 1e9, logicalSectorSize: 512 },
  ...{ physicalSectorSize: 512, rotational: false, removable: false, readOnly: false, sequence: 1 },
  ...{ partitions: [], mounts: [] },
  ...more,
});

const partitionOf = (filesystem: string) => [
  { path: '/dev/x1', number: 1, start: 0, size: 1, filesystem, label: '' },
];

const choose = (disks: Disk[]) =>
  Object.fromEntries(chooseDisks(disks, { kind: 'all-internal' }).map(({ disk, skip }) => [disk.name, skip]));

test('all internal: what could be pulled out, is shared, read-only or in use is left alone, with the reason', (t) => {
  const chosen = choose([
    diskOf('sda'),
    diskOf('nvme0n1', { transport: 'nvme' }),
    diskOf('usb', { transport: 'usb', onlyWhenNamed: 'USB' }),
    diskOf('san', { transport: 'iscsi', onlyWhenNamed: 'storage network' }),
    diskOf('card', { removable: true }),
    diskOf('ro', { readOnly: true }),
    diskOf('boot', { mounts: ['/'] }),
    diskOf('vmfs', { partitions: partitionOf('VMFS_volume_member') }),
    diskOf('vmfs2', { content: 'VMFS_volume_member' }),
    diskOf('path1', { wwn: '0x5000', serial: 'L' }),
    diskOf('path2', { wwn: 'naa.5000', serial: 'L' }),
    diskOf('sr0', { skipped: 'optical drive' }),
    diskOf('loop0', { skipped: 'loop device' }),
  ]);
  t.is(chosen['sda'], null);
  t.is(chosen['nvme0n1'], null);
  const reasons: Record<string, RegExp> = {
    ...{ usb: /USB/, san: /storage network/, card: /removable/, ro: /read-only/, boot: /in use: \// },
    ...{
      vmfs: /VMFS/,
      vmfs2: /VMFS/,
      path1: /another path to it is \/dev\/path2/,
      path2: /path1/,
      sr0: /optical/,
    },
  };
  for (const [name, reason] of Object.entries(reasons)) t.regex(chosen[name] ?? '', reason, name);
  t.false('loop0' in chosen, 'no disk of the machine');
});

test('members of a RAID set are internal disks like others: nothing of ours assembles the set', (t) => {
  const raid = { skipped: 'member of a RAID set (isw_raid_member)', raidMember: true } as const;
  t.is(choose([diskOf('sda', raid)])['sda'], null);
  t.throws(() => choose([diskOf('sda', { skipped: 'no medium' })]), { code: 'DISK_NOT_FOUND' });
});

test('named disks: each must be there, a USB one too; the others are left alone', (t) => {
  const disks = [diskOf('sda'), diskOf('usb', { onlyWhenNamed: 'USB' }), diskOf('ro', { readOnly: true })];
  const named = (...serials: string[]) =>
    chooseDisks(disks, { kind: 'named', hints: serials.map((serial) => ({ serial })) });
  t.deepEqual(
    named('S-usb').map(({ disk, skip }) => [disk.name, skip]),
    [
      ['sda', 'not named by the task'],
      ['usb', null],
      ['ro', 'not named by the task'],
    ],
  );
  t.throws(() => named('S-sda', 'S-gone'), { code: 'DISK_NOT_FOUND' });
  t.throws(() => named('S-sda', 'S-sda'), { code: 'DISK_AMBIGUOUS' });
  t.throws(() => named('S-ro'), { code: 'DISK_NOT_FOUND' });
  const twins = [diskOf('sda', { serial: 'X' }), diskOf('sdb', { serial: 'X' })];
  t.throws(() => chooseDisks(twins, { kind: 'named', hints: [{ serial: 'X' }] }), { code: 'DISK_AMBIGUOUS' });
});

/** A terminal that a test types on. */
const terminal = () => {
  const events = new EventEmitter();
  const calls: string[] = [];
  const input = Object.assign(events, {
    isTTY: true,
    setRawMode: (raw: boolean) => calls.push(`raw ${raw}`),
    resume: () => calls.push('resume'),
    pause: () => calls.push('pause'),
  });
  return {
    input: input as unknown as Parameters<typeof stopKeyPressed>[1],
    type: (text: string) => events.emit('data', Buffer.from(text)),
    calls,
  };
};

test('the countdown goes on by itself, and every second says how many are left', async (t) => {
  const left: number[] = [];
  const signal = new AbortController().signal;
  await countDown({ seconds: 2, show: (n) => left.push(n), stopped: new Promise(() => undefined), signal });
  t.deepEqual(left, [2, 1]);
});

test('q at the machine ends the countdown; noise on the line and arrow keys do not; the terminal is given back', async (t) => {
  const { input, type, calls } = terminal();
  const over = new AbortController();
  const stopped = stopKeyPressed(over.signal, input);
  const counting = countDown({ seconds: 30, show: () => undefined, stopped, signal: over.signal });
  type('\u001b[A\r\n\u0000x');
  await sleep(50);
  type('q');
  await t.throwsAsync(counting, { code: 'TASK_CANCELLED', message: /nothing was written/ });
  over.abort();
  t.deepEqual(calls, ['raw true', 'resume', 'raw false', 'pause']);
});
