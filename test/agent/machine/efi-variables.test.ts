import { readFileSync } from 'node:fs';
import test from 'ava';
import { orderWith, parseBootMenu, replacedEntries } from '../../../agent/machine/efi-variables.ts';

const fixture = (name: string): string => readFileSync(`test/fixtures/tools/efibootmgr/${name}.txt`, 'utf8');
const WINDOWS = '7c2f5a10-93a8-4c1e-8d2b-0a1b2c3d4e5f';
const GONE = 'deadbeef-93a8-4c1e-8d2b-0a1b2c3d4e5f';

test('a laptop’s menu as efibootmgr 17 prints it', (t) => {
  const menu = parseBootMenu(fixture('17-laptop'));
  t.is(menu.current, '0005');
  t.is(menu.next, null);
  t.deepEqual(menu.order, ['0005', '0007', '0000', '0003', '0001']);
  t.deepEqual(
    menu.entries.map(({ number, active, label, partition, loader, network }) => [
      ...[number, active, label, partition, loader, network],
    ]),
    [
      ['0000', true, 'Windows Boot Manager', WINDOWS, '\\EFI\\MICROSOFT\\BOOT\\BOOTMGFW.EFI', false],
      ['0001', false, 'Diskette Drive', null, null, false],
      ['0003', true, 'debian', GONE, '\\EFI\\debian\\shimx64.efi', false],
      ['0005', true, 'UEFI: PXE IPv4 Intel(R) Ethernet', null, null, true],
      ['0007', true, 'UEFI: HTTPv6 Intel(R) Ethernet', null, null, true],
    ],
  );
});

test('a menu recorded from efibootmgr 18 after a deploy', (t) => {
  const menu = parseBootMenu(fixture('18-after-deploy'));
  t.is(menu.next, '0001');
  t.deepEqual(menu.order, ['0001', '0000']);
  t.is(menu.entries.length, 2);
  t.like(menu.entries[1], {
    label: 'debian',
    partition: '11111111-1111-4111-8111-111111111111',
    loader: '\\EFI\\debian\\shimx64.efi',
  });
});

test('paths without File() and with data in hex, labels with tabs', (t) => {
  const { entries } = parseBootMenu(fixture('18-libefivar-39'));
  t.deepEqual(
    entries.map(({ label, loader }) => [label, loader]),
    [
      ['Windows Boot Manager', '\\EFI\\Microsoft\\Boot\\bootmgfw.efi'],
      ['Tab\tin label', '\\EFI\\ubuntu\\shimx64.efi'],
    ],
  );
});

test('an empty variable store', (t) => {
  t.deepEqual(parseBootMenu('BootOrder: \nNo BootOrder is set; firmware will attempt recovery\n'), {
    current: null,
    next: null,
    order: [],
    entries: [],
  });
});

test('a new entry comes behind the network that came first', (t) => {
  const menu = parseBootMenu(fixture('17-laptop'));
  t.deepEqual(orderWith(menu, '0009', ['0003']), ['0005', '0007', '0009', '0000', '0001']);
});

test('a new entry comes first where the network did not', (t) => {
  const menu = parseBootMenu(fixture('17-laptop'));
  t.deepEqual(orderWith({ ...menu, order: ['0000', '0005'] }, '0009', []), ['0009', '0000', '0005']);
  t.deepEqual(orderWith({ ...menu, order: [] }, '0009', []), ['0009']);
  t.deepEqual(orderWith({ ...menu, order: ['0005'] }, '0009', []), ['0005', '0009']);
});

test('entries of the same partition go, and those of the same name whose disk is gone', (t) => {
  const menu = parseBootMenu(fixture('17-laptop'));
  const numbers = (wanted: { partition: string; label: string }, present: string[]) =>
    replacedEntries(menu, wanted, new Set(present)).map(({ number }) => number);
  t.deepEqual(numbers({ partition: WINDOWS, label: 'debian' }, [WINDOWS]), ['0000', '0003']);
  t.deepEqual(numbers({ partition: 'new', label: 'debian' }, [WINDOWS, 'new']), ['0003']);
  // another disk of this machine has a system of the same name: not ours to delete
  t.deepEqual(numbers({ partition: 'new', label: 'debian' }, [GONE, 'new']), []);
  t.deepEqual(numbers({ partition: 'new', label: 'other' }, []), []);
});
