import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { meaningful, readIdentity } from '../../../agent/machine/identity.ts';
import { readInterfaces } from '../../../agent/machine/network.ts';

const GLOBAL = '8be4df61-93ca-11d2-aa0d-00e098032b8c';

/** A folder that looks like sysfs and procfs. */
const machine = async (t: ExecutionContext, files: Record<string, string | Buffer>): Promise<string> => {
  const root = await mkdtemp(join(tmpdir(), 'machine-'));
  t.teardown(async () => await rm(root, { recursive: true }));
  const all = {
    'proc/cmdline': 'quiet BOOTIF=01-52-54-00-00-00-02 ro\n',
    'sys/class/dmi/id/product_uuid': '4C4C4544-0043-3510-8052-B4C04F564231\n',
    'sys/class/dmi/id/product_serial': 'CN5VB1\n',
    'sys/class/dmi/id/sys_vendor': 'Dell Inc.\n',
    'sys/class/dmi/id/product_name': 'To Be Filled By O.E.M.\n',
    ...nic('eth0', '52:54:00:00:00:01'),
    ...nic('eth1', '52:54:00:00:00:02'),
    'sys/class/net/lo/address': '00:00:00:00:00:00\n',
    'sys/class/net/lo/type': '772\n',
    'sys/class/net/docker0/address': '02:42:00:00:00:01\n',
    'sys/class/net/docker0/type': '1\n',
    ...files,
  };
  for (const [path, content] of Object.entries(all)) {
    const file = join(root, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, content);
  }
  for (const name of ['eth0', 'eth1']) {
    await mkdir(join(root, `sys/devices/${name}`), { recursive: true });
    await symlink(join(root, `sys/devices/${name}`), join(root, `sys/class/net/${name}/device`));
    await symlink('/sys/bus/pci/drivers/e1000e', join(root, `sys/devices/${name}/driver`));
  }
  return root;
};

const nic = (name: string, mac: string): Record<string, string> => ({
  [`sys/class/net/${name}/address`]: `${mac}\n`,
  [`sys/class/net/${name}/type`]: '1\n',
  [`sys/class/net/${name}/carrier`]: name === 'eth0' ? '1\n' : '0\n',
  [`sys/class/net/${name}/speed`]: name === 'eth0' ? '1000\n' : '-1\n',
});

test('a BIOS machine: the card that booted first, SMBIOS without fillers', async (t) => {
  t.deepEqual(await readIdentity({ root: await machine(t, {}) }), {
    macs: ['52:54:00:00:00:02', '52:54:00:00:00:01'],
    uuid: '4c4c4544-0043-3510-8052-b4c04f564231',
    serial: 'CN5VB1',
    manufacturer: 'Dell Inc.',
    firmware: 'bios',
    secureBoot: 'unsupported',
  });
});

test('the boot card in any spelling', async (t) => {
  const root = await machine(t, { 'proc/cmdline': 'quiet\n' });
  t.is((await readIdentity({ root })).macs[0], '52:54:00:00:00:01');
  for (const bootMac of ['52:54:00:00:00:02', '52-54-00-00-00-02', '01-52-54-00-00-00-02', '525400000002']) {
    t.is((await readIdentity({ root, bootMac })).macs[0], '52:54:00:00:00:02', bootMac);
  }
});

for (const [state, secureBoot, setupMode] of [
  ['on', 1, 0],
  ['off', 0, 0],
  ['setup', 0, 1],
] as const) {
  test(`Secure Boot ${state}`, async (t) => {
    const variable = (value: number) => Buffer.from([6, 0, 0, 0, value]);
    const root = await machine(t, {
      [`sys/firmware/efi/efivars/SecureBoot-${GLOBAL}`]: variable(secureBoot),
      [`sys/firmware/efi/efivars/SetupMode-${GLOBAL}`]: variable(setupMode),
    });
    t.like(await readIdentity({ root }), { firmware: 'uefi', secureBoot: state });
  });
}

test('a UUID of zeros, ones or a joke is none', async (t) => {
  for (const uuid of [
    '00000000-0000-0000-0000-000000000000',
    'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF',
    'fefefefe-fefe-fefe-fefe-fefefefefefe',
    '03000200-0400-0500-0006-000700080009',
    'Not Settable',
  ]) {
    const root = await machine(t, { 'sys/class/dmi/id/product_uuid': `${uuid}\n` });
    t.is((await readIdentity({ root })).uuid, undefined, uuid);
  }
});

test('a UUID that no RFC knows still names the machine', async (t) => {
  const root = await machine(t, {
    'sys/class/dmi/id/product_uuid': '031B021C-040D-0533-C106-7C0700080009\n',
  });
  t.is((await readIdentity({ root })).uuid, '031b021c-040d-0533-c106-7c0700080009');
});

test('what vendors leave in by default means nothing', (t) => {
  for (const text of [
    'Default string',
    'System Serial Number',
    '0',
    '00000000',
    'XXXX',
    '123456789',
    ' ',
    null,
  ]) {
    t.is(meaningful(text), undefined, String(text));
  }
  for (const text of ['CN5VB1', '5CD1234XYZ', '10']) t.is(meaningful(text), text);
});

test('interfaces without a device behind them do not count', async (t) => {
  t.deepEqual(await readInterfaces(await machine(t, {})), [
    { name: 'eth0', mac: '52:54:00:00:00:01', driver: 'e1000e', carrier: true, speedMbit: 1000 },
    { name: 'eth1', mac: '52:54:00:00:00:02', driver: 'e1000e', carrier: false, speedMbit: null },
  ]);
});

test('a machine without a network card cannot be identified', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'machine-'));
  t.teardown(async () => await rm(root, { recursive: true }));
  await t.throwsAsync(readIdentity({ root }), { code: 'NETWORK_UNREACHABLE' });
});
