import test from 'ava';
import type { Disk } from '../../../agent/disk/disk.ts';
import { normalizeWwn, selectDisk } from '../../../agent/disk/select.ts';
import type { ImagingError } from '../../../agent/errors.ts';
import { diskOf as disk } from './disk-cases.ts';

const nameless = (name: string, more: Partial<Disk> = {}): Disk => {
  const { serial: _, ...rest } = disk(name, more);
  return rest;
};

test('one disk needs no hint, not even a serial number', (t) => {
  t.is(selectDisk([nameless('vda')], undefined, 'deploy').path, '/dev/vda');
});

test('several disks without a hint are ambiguous, and the error lists them', (t) => {
  const disks = [disk('nvme0n1', { wwn: 'eui.1' }), disk('nvme1n1', { wwn: 'eui.2' })];
  const error = t.throws(() => selectDisk(disks, undefined, 'deploy'), {
    code: 'DISK_AMBIGUOUS',
  }) as ImagingError;
  t.deepEqual(error.details['disks'], [
    { path: '/dev/nvme0n1', model: 'Model', serial: 'serial-nvme0n1', wwn: 'eui.1', size: 512_110_190_592 },
    { path: '/dev/nvme1n1', model: 'Model', serial: 'serial-nvme1n1', wwn: 'eui.2', size: 512_110_190_592 },
  ]);
  t.regex(error.message, /serial-nvme1n1/);
});

test('USB, cards and what is skipped are no rivals of the one disk', (t) => {
  const disks = [
    disk('sda', { onlyWhenNamed: 'USB' }),
    disk('sr0', { skipped: 'optical drive' }),
    disk('nvme0n1'),
    disk('sdb', { readOnly: true }),
  ];
  t.is(selectDisk(disks, undefined, 'deploy').path, '/dev/nvme0n1');
  t.is(selectDisk(disks, { serial: 'serial-sda' }, 'deploy').path, '/dev/sda');
  t.throws(() => selectDisk(disks.slice(0, 2), undefined, 'deploy'), { code: 'DISK_NOT_FOUND' });
});

test('the size alone does not name a USB disk', (t) => {
  const disks = [disk('sda', { onlyWhenNamed: 'USB', size: 1000 }), disk('sdb')];
  t.throws(() => selectDisk(disks, { size: 1000 }, 'deploy'), { code: 'DISK_NOT_FOUND' });
});

test('read-only hardware can be captured but not deployed to', (t) => {
  const disks = [disk('vda', { readOnly: true })];
  t.is(selectDisk(disks, undefined, 'capture').path, '/dev/vda');
  const error = t.throws(() => selectDisk(disks, undefined, 'deploy'), {
    code: 'DISK_NOT_FOUND',
  }) as ImagingError;
  t.like((error.details['skipped'] as unknown[])[0], { path: '/dev/vda', reason: 'read-only hardware' });
});

test('a hint that matches nothing finds nothing: no fallback to the only disk', (t) => {
  const error = t.throws(() => selectDisk([disk('sda')], { serial: 'DEAD' }, 'deploy'), {
    code: 'DISK_NOT_FOUND',
  });
  t.regex(error?.message ?? '', /serial DEAD.*serial-sda/);
});

test('all parts of a hint must match', (t) => {
  const disks = [disk('sda', { wwn: '0x5000c500a1b2c3d4' }), disk('sdb')];
  t.is(selectDisk(disks, { serial: 'serial-sda', wwn: 'naa.5000C500A1B2C3D4' }, 'deploy').path, '/dev/sda');
  t.throws(() => selectDisk(disks, { serial: 'serial-sda', size: 1 }, 'deploy'), { code: 'DISK_NOT_FOUND' });
});

test('a hint that several disks match is ambiguous', (t) => {
  t.throws(() => selectDisk([disk('sda'), disk('sdb')], { size: 512_110_190_592 }, 'deploy'), {
    code: 'DISK_AMBIGUOUS',
  });
});

test('a disk that nothing identifies is not chosen among several, even by its size', (t) => {
  const disks = [nameless('vda', { size: 1000 }), disk('vdb')];
  t.throws(() => selectDisk(disks, { size: 1000 }, 'deploy'), { code: 'DISK_AMBIGUOUS' });
});

test('two paths to one disk are one disk; one WWN on different disks is not', (t) => {
  const [a, b] = [disk('sda', { wwn: '0x5000', serial: 'X' }), disk('sdb', { wwn: '0x5000', serial: 'X' })];
  t.is(selectDisk([a, b], undefined, 'deploy').path, '/dev/sda');
  t.throws(() => selectDisk([a, { ...b, serial: 'Y' }], undefined, 'deploy'), { code: 'DISK_AMBIGUOUS' });
});

test('WWNs are compared whatever their spelling', (t) => {
  for (const wwn of ['0x5000C500A1B2C3D4', 'naa.5000c500a1b2c3d4', ' 5000c500a1b2c3d4 ']) {
    t.is(normalizeWwn(wwn), '5000c500a1b2c3d4');
  }
});
