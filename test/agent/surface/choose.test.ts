import test from 'ava';
import type { Disk } from '../../../agent/disk/disk.ts';
import { hasCode } from '../../../agent/errors.ts';
import { chooseTestDisks } from '../../../agent/surface/choose.ts';

const disk = (serial: string, more: Partial<Disk> = {}): Disk => ({
  ...{ name: serial, path: `/dev/${serial}`, serial, size: 1e9, sequence: 1, partitions: [], mounts: [] },
  ...{
    logicalSectorSize: 512,
    physicalSectorSize: 512,
    rotational: false,
    removable: false,
    readOnly: false,
  },
  ...more,
});
const machine = [
  disk('own'),
  disk('mounted', { mounts: ['/'] }),
  disk('protected', { readOnly: true }),
  disk('member', { skipped: 'member of a RAID set', raidMember: true }),
  disk('stick', { onlyWhenNamed: 'USB' }),
  disk('path1', { wwn: '0x5000', serial: 'twin' }),
  disk('path2', { wwn: 'naa.5000', serial: 'twin' }),
  disk('cd', { skipped: 'optical drive' }),
  disk('loop0', { skipped: 'loop device' }),
];
const taken = (mode: 'read' | 'read-write'): string[] =>
  chooseTestDisks(machine, { kind: 'all-internal' }, mode)
    .filter(({ skip }) => skip === null)
    .map(({ disk: { name } }) => name);

test('all internal: reading takes what is in use or write-protected too, each disk once; writing does not', (t) => {
  t.deepEqual(taken('read'), ['own', 'mounted', 'protected', 'member', 'path1']);
  t.deepEqual(taken('read-write'), ['own', 'member', 'path1']);
  const skipped = chooseTestDisks(machine, { kind: 'all-internal' }, 'read');
  t.deepEqual(
    skipped.flatMap(({ disk: { name }, skip }) => (skip === null ? [] : [[name, skip]])),
    [
      ['stick', 'USB: only when named by serial number or WWN'],
      ['path2', 'another path to a disk that is tested already'],
      ['cd', 'optical drive'],
    ],
  );
});

test('named disks: also USB ones; one that is missing is refused, and so is a machine without disks', (t) => {
  const named = (serial: string) =>
    chooseTestDisks(machine, { kind: 'named', hints: [{ serial }] }, 'read').find(
      ({ skip }) => skip === null,
    );
  t.is(named('stick')?.disk.name, 'stick');
  t.is(named('protected')?.disk.name, 'protected');
  t.true(
    hasCode(
      t.throws(() => named('gone')),
      'DISK_NOT_FOUND',
    ),
  );
  const none = (): unknown =>
    chooseTestDisks([disk('stick', { onlyWhenNamed: 'USB' })], { kind: 'all-internal' }, 'read');
  t.true(hasCode(t.throws(none), 'DISK_NOT_FOUND'));
});
