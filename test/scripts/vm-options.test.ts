import test from 'ava';
import { seenFromMachine } from '../../scripts/lib/vm/boot-folder.ts';
import { withoutEscapes } from '../../scripts/lib/vm/console.ts';
import { machineArguments } from '../../scripts/lib/vm/machine.ts';
import { parseDisk, parseVmOptions } from '../../scripts/lib/vm/options.ts';

test('a disk is a file with settings; a doubled comma belongs to the name', (t) => {
  t.deepEqual(parseDisk('a.img'), { file: 'a.img' });
  t.deepEqual(parseDisk('a,,b.img,bus=nvme,serial=S 1,ro,sector=4096,format=qcow2'), {
    file: 'a,b.img',
    bus: 'nvme',
    serial: 'S 1',
    readOnly: true,
    sectorSize: 4096,
    format: 'qcow2',
  });
  for (const text of ['', ',ro', 'a,bus=scsi', 'a,size=3', 'a,ro=no']) {
    t.throws(() => parseDisk(text), { code: 'CONFIG_INVALID' }, text);
  }
});

test('the command line is read whole, and an unknown word is refused', async (t) => {
  const options = await parseVmOptions([
    ...['--server', 'http://127.0.0.1:8080', '--mac', '52-54-00-AA-BB-01', '--firmware', 'secureboot'],
    ...['--disk', 'a.img,ro', '--disk', 'b.img', '--timeout', '30', '--nic', 'e1000', '--nic', 'virtio'],
  ]);
  t.is(options.timeoutMs, 30_000);
  t.deepEqual(options.disks, [{ file: 'a.img', readOnly: true }, { file: 'b.img' }]);
  t.deepEqual(options.nics, [{ model: 'e1000', mac: '52:54:00:aa:bb:01' }, { model: 'virtio' }]);
  for (const args of [
    ['--boot', 'disk', '--no-such'],
    ['--boot', 'floppy'],
    [],
    ['--boot', 'disk', '--mac', 'x'],
  ]) {
    await t.throwsAsync(parseVmOptions(args), { code: 'CONFIG_INVALID' }, args.join(' '));
  }
});

test("the host's loopback is 10.0.2.2 for a machine behind NAT, other addresses stay", (t) => {
  t.is(seenFromMachine('http://127.0.0.1:8080/'), 'http://10.0.2.2:8080');
  t.is(seenFromMachine('http://localhost'), 'http://10.0.2.2');
  t.is(seenFromMachine('http://localhost.example:8080'), 'http://localhost.example:8080');
  t.is(seenFromMachine('http://192.168.1.5'), 'http://192.168.1.5');
});

test('cards boot before disks, disks keep their order, and a read-only disk is so for QEMU', (t) => {
  const args = machineArguments(
    {
      disks: [
        { file: '/a.img', readOnly: true, serial: 'A,1' },
        { file: '/b.img', bus: 'nvme' },
      ],
      nics: [{ network: { kind: 'none' } }, { network: { kind: 'tap', interface: 'tap0' } }],
    },
    '/run',
    '/run/console',
  ).join(' ');
  t.regex(args, /virtio-net-pci,mac=52:54:00:12:34:56,bootindex=0/);
  t.regex(args, /ifname=tap0.*virtio-net-pci,netdev=net1,mac=52:54:00:12:34:57,bootindex=1/);
  t.regex(args, /"node-name":"drive0","read-only":true/);
  t.regex(args, /virtio-blk-pci,id=disk0,drive=drive0,serial=A,,1,bootindex=2/);
  t.regex(args, /nvme,id=disk1,drive=drive1,serial=nvme-1,bootindex=3/);
});

test('a read-only SATA disk is refused, as QEMU would', (t) => {
  t.throws(() => machineArguments({ disks: [{ file: '/a', bus: 'sata', readOnly: true }] }, '/run', '/c'), {
    code: 'CONFIG_INVALID',
  });
});

test('terminal escapes do not come between the words of a console', (t) => {
  t.is(withoutEscapes('\x1b[2J\x1b[01;01Hfog\x1b[0m: \x1b[8;25;80tready\r\n'), 'fog: ready\n');
});
