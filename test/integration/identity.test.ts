import { chmod, chown, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { driverFor } from '../../agent/filesystem/index.ts';
import { giveIdentity, type IdentityWish } from '../../agent/os/identity.ts';
import { readOs } from '../../agent/os/os-facts.ts';
import { SYSTEM_HIVE } from '../../agent/os/windows-name.ts';
import { run } from '../../agent/process/run.ts';
import { inspectVolumes } from '../../agent/volumes/inspect.ts';
import { openDeployed } from '../../agent/volumes/lvm/open.ts';
import { makeHive, valueIn, windowsSystem } from '../hive.ts';
import { newLog, notClosed } from '../hive-log.ts';
import { attachLoop, hashOf, MIB } from './loop-device.ts';
import { lvm, placesOf } from './lvm.ts';
import { withMount } from './with-mount.ts';

const { signal } = new AbortController();
const KEEP: IdentityWish = { hostname: null, fresh: false, relocation: { moves: [], guids: new Map() } };
const OLD_ID = '0123456789abcdef0123456789abcdef';

const put = async (root: string, files: Record<string, string | Buffer>): Promise<void> => {
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(root, name)), { recursive: true });
    await writeFile(join(root, name), content);
  }
};

/** What a Debian has of itself, as far as this goes. */
const linuxTree = async (root: string): Promise<void> => {
  await put(root, {
    'usr/lib/os-release': 'NAME="Debian GNU/Linux"\nVERSION_ID="13"\n',
    'etc/hostname': 'golden\n',
    'etc/hosts': '127.0.0.1\tlocalhost\n127.0.1.1\tgolden.lab.example\tgolden\n10.0.0.1 golden\n',
    'etc/machine-id': `${OLD_ID}\n`,
    'etc/fstab': 'UUID=1 / ext4 defaults 0 1\n',
    'var/lib/dbus/machine-id': `${OLD_ID}\n`,
    'var/lib/systemd/random-seed': 'seed',
    'var/lib/systemd/credential.secret': 'secret',
    'etc/ssh/ssh_host_dsa_key': 'old',
    'etc/ssh/ssh_host_dsa_key.pub': 'old',
  });
  await symlink('../usr/lib/os-release', join(root, 'etc/os-release'));
  for (const type of ['ed25519', 'rsa']) {
    const path = join(root, `etc/ssh/ssh_host_${type}_key`);
    await run('ssh-keygen', ['-q', '-t', type, '-N', '', '-C', 'root@golden', '-f', path]);
  }
  await chmod(join(root, 'etc/machine-id'), 0o444);
  await chown(join(root, 'etc/ssh/ssh_host_rsa_key'), 0, 998);
  await chmod(join(root, 'etc/ssh/ssh_host_rsa_key'), 0o640);
};

interface LinuxKind {
  name: string;
  type: string;
  size: number;
  make: string[];
  root?: string;
}

const kinds: readonly LinuxKind[] = [
  { name: 'ext4', type: 'ext4', size: 32 * MIB, make: ['mkfs.ext4', '-q', '-F'] },
  { name: 'xfs', type: 'xfs', size: 320 * MIB, make: ['mkfs.xfs', '-q', '-f'] },
  {
    name: 'btrfs, subvolume @rootfs',
    type: 'btrfs',
    size: 128 * MIB,
    make: ['mkfs.btrfs', '-q', '-f'],
    root: '@rootfs',
  },
];

const makeLinux = async (t: ExecutionContext, kind: LinuxKind): Promise<string> => {
  const { path } = await attachLoop(t, kind.size);
  const [tool = '', ...args] = kind.make;
  await run(tool, [...args, path]);
  await withMount(['mount'], path, async (folder) => {
    if (kind.root) await run('btrfs', ['subvolume', 'create', join(folder, kind.root)]);
    await linuxTree(join(folder, kind.root ?? ''));
  });
  return path;
};

for (const kind of kinds) {
  test.serial(`Linux on ${kind.name}: name, machine-id and keys are new, and nothing else is`, async (t) => {
    const device = await makeLinux(t, kind);
    const systems = [{ name: 'p2', device, filesystem: kind.type }];
    t.deepEqual(await readOs(device, kind.type, signal), { name: 'Debian GNU/Linux', version: '13' });
    const wish = { ...KEEP, hostname: 'lab-7', fresh: true };
    const outcome = await giveIdentity(systems, wish, signal);
    t.deepEqual(outcome.unmet, []);
    t.deepEqual(outcome.warnings, []);
    t.deepEqual(
      outcome.evidence.map(({ what }) => what),
      ['hostname', 'machine-id', 'SSH host keys', 'secrets of the captured machine'].map(
        (what) => `p2: ${what}`,
      ),
    );
    await driverFor(kind.type)?.check(device, signal);
    await withMount(['mount', '-o', 'ro'], device, async (folder) => {
      const root = join(folder, kind.root ?? '');
      const text = (name: string) => readFile(join(root, name), 'utf8');
      t.is(await text('etc/hostname'), 'lab-7\n');
      t.is(
        await text('etc/hosts'),
        '127.0.0.1\tlocalhost\n127.0.1.1\tlab-7.lab.example\tlab-7\n10.0.0.1 golden\n',
      );
      const id = await text('etc/machine-id');
      t.regex(id, /^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}\n$/);
      t.is(await text('var/lib/dbus/machine-id'), id);
      t.is((await stat(join(root, 'etc/machine-id'))).mode & 0o777, 0o444);
      t.is(await text('etc/fstab'), 'UUID=1 / ext4 defaults 0 1\n');
      for (const gone of [
        'var/lib/systemd/random-seed',
        'var/lib/systemd/credential.secret',
        'etc/ssh/ssh_host_dsa_key',
      ]) {
        await t.throwsAsync(stat(join(root, gone)), { code: 'ENOENT' }, gone);
      }
      for (const [type, mode, group] of [
        ['ed25519', 0o600, 0],
        ['rsa', 0o640, 998],
      ] as const) {
        const key = join(root, `etc/ssh/ssh_host_${type}_key`);
        const stats = await stat(key);
        t.is(stats.mode & 0o777, mode, type);
        t.is(stats.gid, group, type);
        const copy = join(tmpdir(), `identity-key-${process.pid}`);
        await writeFile(copy, await readFile(key), { mode: 0o600 });
        const { stdout } = await run('ssh-keygen', ['-y', '-f', copy]).finally(() => rm(copy));
        t.is(stdout.trim(), (await text(`etc/ssh/ssh_host_${type}_key.pub`)).trim());
        t.regex(stdout, /root@lab-7/);
      }
      await t.throwsAsync(stat(join(root, 'etc/ssh/ssh_host_ecdsa_key')), { code: 'ENOENT' });
    });
  });
}

test.serial('Linux in a logical volume is found at capture and changed through its own node', async (t) => {
  const { path } = await attachLoop(t, 96 * MIB);
  await lvm([path], 'pvcreate', ['-q', path]);
  await lvm([path], 'vgcreate', ['-q', 'named.vg', path]);
  for (const name of ['home', 'root']) {
    await lvm([path], 'lvcreate', ['-q', '-an', '-Zn', '-Wn', '-n', name, '-L', '32M', 'named.vg']);
  }
  const inVolume = async <T>(name: string, work: (node: string) => Promise<T>): Promise<T> => {
    const [place] = (await placesOf([path])).get(name) ?? [];
    const range = ['--offset', String(place?.offset), '--sizelimit', String(place?.length)];
    const node = (await run('losetup', ['--find', '--show', ...range, path])).stdout.trim();
    try {
      await run('blockdev', ['--setrw', node]);
      return await work(node);
    } finally {
      await run('blockdev', ['--flushbufs', node]);
      await run('losetup', ['--detach', node]);
      await run('blockdev', ['--flushbufs', path]);
    }
  };
  await inVolume('home', async (node) => await run('mkfs.ext4', ['-q', node]));
  await inVolume('root', async (node) => {
    await run('mkfs.ext4', ['-q', node]);
    await withMount(['mount'], node, linuxTree);
  });
  const home = await inVolume('home', hashOf);
  const volume = { device: path, size: 96 * MIB, name: 'p1', partition: true };
  const [look] = await inspectVolumes([volume], { signal, keys: [], raw: false, replay: false });
  const deployed = { device: path, nodes: [path], contains: look?.contains ?? [], signal };
  {
    await using opened = await openDeployed(deployed, ({ role }) => role === 'os');
    const systems = opened.volumes.map(({ volume: { name, filesystem }, device }) => {
      return { name, device, filesystem: filesystem?.type ?? '' };
    });
    t.deepEqual(
      systems.map(({ name }) => name),
      ['named.vg/root'],
    );
    const outcome = await giveIdentity(systems, { ...KEEP, hostname: 'lab-7', fresh: true }, signal);
    t.deepEqual(outcome.unmet, []);
  }
  const name = async (node: string) => (await run('debugfs', ['-R', 'cat /etc/hostname', node])).stdout;
  t.is(await inVolume('root', name), 'lab-7\n');
  await inVolume('root', async (node) => await run('e2fsck', ['-fn', node]));
  t.is(await inVolume('home', hashOf), home);
});

test.serial('nothing asked for, nothing mounted: the device stays as it is', async (t) => {
  const device = await makeLinux(t, kinds[0] as LinuxKind);
  const before = await hashOf(device);
  t.deepEqual((await giveIdentity([{ name: 'p1', device, filesystem: 'ext4' }], KEEP, signal)).unmet, []);
  t.is(await hashOf(device), before);
});

test.serial(
  'links out of the root, a machine-id that waits for its first start, a filesystem without a system',
  async (t) => {
    const device = await makeLinux(t, kinds[0] as LinuxKind);
    const outside = join(await mkdtemp(join(tmpdir(), 'outside-')), 'hostname');
    t.teardown(() => rm(dirname(outside), { recursive: true, force: true }));
    await writeFile(outside, 'of this machine\n');
    await withMount(['mount'], device, async (root) => {
      await rm(join(root, 'etc/hostname'));
      await symlink(outside, join(root, 'etc/hostname'));
      await writeFile(join(root, 'etc/machine-id'), 'uninitialized\n');
      await rm(join(root, 'etc/ssh'), { recursive: true });
      await symlink('/../../../..', join(root, 'etc/ssh'));
    });
    const wish = { ...KEEP, hostname: 'lab-7', fresh: true };
    const outcome = await giveIdentity([{ name: 'p1', device, filesystem: 'ext4' }], wish, signal);
    t.is(outcome.unmet.length, 1);
    t.regex(outcome.unmet[0] ?? '', /etc\/hostname: it is a link/);
    t.is(await readFile(outside, 'utf8'), 'of this machine\n');
    await withMount(['mount', '-o', 'ro'], device, async (root) => {
      t.is(await readFile(join(root, 'etc/machine-id'), 'utf8'), 'uninitialized\n');
    });
    await run('mkfs.ext4', ['-q', '-F', device]);
    const empty = await giveIdentity([{ name: 'p1', device, filesystem: 'ext4' }], wish, signal);
    t.regex(empty.unmet.join(), /no operating system was found/);
    const none = await giveIdentity([{ name: 'p1', device, filesystem: 'ntfs' }], wish, signal);
    t.regex(none.unmet.join(), /ntfs-3g/);
  },
);

const DISK = '1bbe1186-b3bb-4a08-af22-264b3379d8cd';
const reagent = (offset: number): string =>
  `<?xml version='1.0' encoding='utf-8'?>\r\n<WindowsRE version="2.0">\r\n  <WinreLocation path="\\Recovery\\WindowsRE" id="0" offset="${offset}" guid="{${DISK}}"/>\r\n  <InstallState state="1"/>\r\n</WindowsRE>\r\n`;

/** The two hives that are looked at, and ReAgent.xml; names in the case that Windows writes. */
const makeWindows = async (t: ExecutionContext): Promise<string> => {
  const { path } = await attachLoop(t, 64 * MIB);
  const folder = await mkdtemp(join(tmpdir(), 'hives-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  await makeHive(join(folder, 'SYSTEM'), windowsSystem('DESKTOP-OLD'));
  await makeHive(join(folder, 'SOFTWARE'), {
    'Microsoft\\Windows NT\\CurrentVersion': {
      ProductName: 'Windows 10 Pro',
      EditionID: 'Professional',
      CurrentBuildNumber: '22631',
      DisplayVersion: '23H2',
    },
  });
  // smaller than its device, then grown, as in a deploy
  await run('mkntfs', ['--quick', '--force', path, String(48 * 2048)]);
  await withMount(['ntfs-3g'], path, async (root) => {
    await put(root, {
      'Windows/System32/config/SYSTEM': await readFile(join(folder, 'SYSTEM')),
      'Windows/System32/config/SOFTWARE': await readFile(join(folder, 'SOFTWARE')),
      'Windows/System32/Recovery/ReAgent.xml': reagent(53_687_091_200),
    });
  });
  return path;
};

const fromNtfs = async (t: ExecutionContext, device: string, name: string): Promise<string> => {
  const path = join(await mkdtemp(join(tmpdir(), 'ntfscat-')), 'file');
  t.teardown(() => rm(dirname(path), { recursive: true, force: true }));
  await run('sh', ['-c', 'ntfscat "$1" "$2" > "$3"', 'sh', device, name, path]);
  return path;
};

test.serial(
  'Windows on NTFS: name in the registry and place of its recovery, seen by ntfscat and hivex',
  async (t) => {
    const device = await makeWindows(t);
    t.deepEqual(await readOs(device, 'ntfs', signal), {
      name: 'Windows 11 Pro',
      version: '23H2 build 22631',
    });
    const wish = {
      hostname: 'Lab-7.example.org',
      fresh: false,
      relocation: {
        moves: [{ from: 53_687_091_200, to: 106_837_311_488 }],
        guids: new Map<string, string>(),
      },
    };
    const outcome = await giveIdentity([{ name: 'p3', device, filesystem: 'ntfs' }], wish, signal);
    t.deepEqual(outcome.unmet, []);
    t.deepEqual(outcome.warnings, []);
    t.is(outcome.evidence.length, 2);
    await driverFor('ntfs')?.check(device, signal);
    const hive = await fromNtfs(t, device, 'Windows/System32/config/SYSTEM');
    t.is(await valueIn(hive, 'ControlSet001\\Control\\ComputerName\\ComputerName', 'ComputerName'), 'LAB-7');
    t.is(await valueIn(hive, 'ControlSet001\\Services\\Tcpip\\Parameters', 'Hostname'), 'Lab-7');
    const xml = await fromNtfs(t, device, 'Windows/System32/Recovery/ReAgent.xml');
    t.is(await readFile(xml, 'utf8'), reagent(106_837_311_488));
  },
);

/** A Windows that lost its power while its registry was written: the first page waits in a log, which may be damaged. */
const makeCrashedWindows = async (t: ExecutionContext, isWhole: boolean): Promise<string> => {
  const device = await makeWindows(t);
  await withMount(['ntfs-3g'], device, async (root) => {
    const path = join(root, SYSTEM_HIVE);
    const hive = await readFile(path);
    const pages = [{ offset: 0, bytes: hive.subarray(4096, 8192) }];
    const log = newLog(hive, [{ sequence: 7, binsSize: hive.readUInt32LE(40), pages }]);
    if (!isWhole) log.writeUInt8(0xff, 600);
    await writeFile(path, notClosed(hive, 7).fill(0, 4096 + 2048, 8192));
    await writeFile(`${path}.LOG1`, log);
  });
  return device;
};

const rename = async (device: string) =>
  await giveIdentity([{ name: 'p3', device, filesystem: 'ntfs' }], { ...KEEP, hostname: 'lab-7' }, signal);

test.serial(
  'a Windows whose registry was not closed gets its name in what its log makes of it',
  async (t) => {
    const device = await makeCrashedWindows(t, true);
    const outcome = await rename(device);
    t.deepEqual(outcome.unmet, []);
    t.deepEqual(
      outcome.evidence.map(({ what }) => what),
      ['p3: registry', 'p3: computer name'],
    );
    const hive = await fromNtfs(t, device, SYSTEM_HIVE);
    t.is(await valueIn(hive, 'ControlSet001\\Control\\ComputerName\\ComputerName', 'ComputerName'), 'LAB-7');
    t.is((await stat(await fromNtfs(t, device, `${SYSTEM_HIVE}.LOG1`))).size, 0);
  },
);

test.serial('a Windows whose registry has a damaged log keeps its name, and that is said', async (t) => {
  const device = await makeCrashedWindows(t, false);
  const before = await hashOf(await fromNtfs(t, device, SYSTEM_HIVE));
  const outcome = await rename(device);
  t.regex(outcome.unmet.join(), /p3: Cannot change .*SYSTEM: it was not closed/);
  t.deepEqual(outcome.evidence, []);
  t.is(await hashOf(await fromNtfs(t, device, SYSTEM_HIVE)), before);
});
