import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import test from 'ava';
import { run } from '../../../agent/process/run.ts';
import { makeHive, valueIn, windowsSystem } from '../../hive.ts';
import { type Bench, createBench, createCleanups, MIB } from './bench.ts';

const SOURCE = '52:54:00:00:40:01';
const TARGET = '52:54:00:00:40:02';
const WAIT = { timeoutMs: 400_000 };
const OLD_ID = '0123456789abcdef0123456789abcdef';
const DISK = '1bbe1186-b3bb-4a08-af22-264b3379d8cd';
/** bytes: ESP, Linux, Windows, its recovery, and room at the end of a larger disk */
const places = {
  esp: { start: MIB, size: 40 * MIB },
  linux: { start: 41 * MIB, size: 48 * MIB },
  windows: { start: 89 * MIB, size: 48 * MIB },
  recovery: { start: 137 * MIB, size: 16 * MIB },
};
const SIZE = 156 * MIB;
const LARGER = 220 * MIB;

const cleanups = createCleanups();
let bench: Bench;
test.before(async () => {
  bench = await createBench(cleanups);
  await bench.addHost('source', SOURCE);
  await bench.addHost('lab-7', TARGET);
});
test.after.always(cleanups.run);

const sh = async (script: string, ...args: string[]): Promise<string> =>
  (await run('sh', ['-ec', script, 'sh', ...args])).stdout;

const put = async (root: string, files: Record<string, string | Buffer>): Promise<void> => {
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(root, name)), { recursive: true });
    await writeFile(join(root, name), content);
  }
};

const reagent = (offset: number): string =>
  `<?xml version='1.0' encoding='utf-8'?>\r\n<WindowsRE version="2.0">\r\n  <WinreLocation path="\\Recovery\\WindowsRE" id="0" offset="${offset}" guid="{${DISK}}"/>\r\n</WindowsRE>\r\n`;

/** A disk with a Linux and a Windows, as far as identity goes, and an ESP with shim and no fallback loader. */
const makeDisk = async (file: string): Promise<void> => {
  const folder = bench.folder;
  const esp = join(folder, 'esp.img');
  await sh('truncate -s "$2" "$1"; mkfs.vfat -F 32 -s 1 "$1" >/dev/null', esp, String(places.esp.size));
  await put(folder, { shim: 'MZ shim', grub: 'MZ grub' });
  await run('mmd', ['-i', esp, '::EFI', '::EFI/debian']);
  await run('mcopy', ['-i', esp, join(folder, 'shim'), '::EFI/debian/shimx64.efi']);
  await run('mcopy', ['-i', esp, join(folder, 'grub'), '::EFI/debian/grubx64.efi']);

  const tree = join(folder, 'linux');
  await put(tree, {
    'etc/os-release': 'NAME="Debian GNU/Linux"\nVERSION_ID="13"\n',
    'etc/hostname': 'golden\n',
    'etc/hosts': '127.0.0.1 localhost\n127.0.1.1 golden\n',
    'etc/machine-id': `${OLD_ID}\n`,
    'var/lib/systemd/random-seed': 'seed',
    'etc/ssh/sshd_config': '',
  });
  await run('ssh-keygen', ['-q', '-t', 'rsa', '-N', '', '-f', join(tree, 'etc/ssh/ssh_host_rsa_key')]);
  await chmod(join(tree, 'etc/machine-id'), 0o444);
  const linux = join(folder, 'linux.img');
  await sh('truncate -s "$2" "$1"; mke2fs -q -t ext4 -d "$3" "$1"', linux, String(places.linux.size), tree);

  await makeHive(join(folder, 'SYSTEM'), windowsSystem('DESKTOP-OLD'));
  await makeHive(join(folder, 'SOFTWARE'), {
    'Microsoft\\Windows NT\\CurrentVersion': { ProductName: 'Windows 10 Pro', CurrentBuildNumber: '19045' },
  });
  await writeFile(join(folder, 'ReAgent.xml'), reagent(places.recovery.start));
  const windows = join(folder, 'windows.img');
  const mount = join(folder, 'mount');
  await mkdir(mount);
  await sh('truncate -s "$2" "$1"; mkntfs -q -F "$1"', windows, String(places.windows.size));
  await run('ntfs-3g', [windows, mount]);
  try {
    await put(mount, {
      'Windows/System32/config/SYSTEM': await readFile(join(folder, 'SYSTEM')),
      'Windows/System32/config/SOFTWARE': await readFile(join(folder, 'SOFTWARE')),
      'Windows/System32/Recovery/ReAgent.xml': await readFile(join(folder, 'ReAgent.xml')),
    });
  } finally {
    await run('umount', [mount]);
  }
  const recovery = join(folder, 'recovery.img');
  await sh('truncate -s "$2" "$1"; mkntfs -q -F "$1"', recovery, String(places.recovery.size));

  await run('truncate', ['-s', String(SIZE), file]);
  const line = (name: keyof typeof places, type: string): string =>
    `start=${places[name].start / 512}, size=${places[name].size / 512}, type=${type}\n`;
  const basicData = 'EBD0A0A2-B9E5-4433-87C0-68B6B72699C7';
  await run('sfdisk', ['--quiet', file], {
    input: `label: gpt\nlabel-id: ${DISK}\n${line('esp', 'U')}${line('linux', 'L')}${line('windows', basicData)}${line('recovery', 'DE94BBA4-06D1-4D40-A16A-BFD50179D6AC')}`,
  });
  for (const [name, part] of [
    ['esp', esp],
    ['linux', linux],
    ['windows', windows],
    ['recovery', recovery],
  ] as const) {
    const seek = `seek=${places[name].start / MIB}`;
    await run('dd', [`if=${part}`, `of=${file}`, 'bs=1M', seek, 'conv=notrunc,sparse', 'status=none']);
  }
};

test.serial(
  'a deployed disk with Linux and Windows has its host’s name, keys of its own and a way to boot',
  async (t) => {
    const source = join(bench.folder, 'source.img');
    await makeDisk(source);
    const capture = await bench.addTask('source', 'capture', { image: 'golden' });
    const first = await bench.startAgent(SOURCE, {
      disks: [{ file: source, serial: 'SRC' }],
      firmware: 'uefi',
    });
    await first.waitForExit(WAIT);
    const captured = await bench.ended(capture);
    t.is(captured.result.outcome, 'succeeded', JSON.stringify(captured.result.error));
    const manifest = JSON.parse(await readFile(join(bench.data, 'images/golden/1/manifest.json'), 'utf8'));
    const text = typeof manifest.manifest === 'string' ? JSON.parse(manifest.manifest) : manifest;
    t.is(text.os.name, 'Debian GNU/Linux');
    t.deepEqual(
      text.disks[0].partitions.map(({ role }: { role: string }) => role),
      ['esp', 'os', 'os', 'recovery'],
    );

    const target = join(bench.folder, 'target.img');
    await run('truncate', ['-s', String(LARGER), target]);
    const deploy = await bench.addTask('lab-7', 'deploy', {
      image: 'golden',
      setHostname: true,
      freshMachineId: true,
    });
    const second = await bench.startAgent(TARGET, {
      disks: [{ file: target, serial: 'DST' }],
      firmware: 'uefi',
    });
    await second.waitForExit(WAIT);
    const { result } = await bench.ended(deploy);
    t.is(result.outcome, 'succeeded', JSON.stringify(result.error));
    const proved = result.evidence.map(({ what }) => what);
    for (const what of [
      'p2: hostname',
      'p2: machine-id',
      'p2: SSH host keys',
      'p3: computer name',
      'fallback boot loader',
    ]) {
      t.true(proved.includes(what), `${what} in ${proved.join()}`);
    }

    // from here on without any code of ours
    const table = JSON.parse((await run('sfdisk', ['--json', target])).stdout).partitiontable.partitions;
    const cut = async (number: number): Promise<string> => {
      const path = join(bench.folder, `out-${number}`);
      const { start, size } = table[number - 1];
      await sh(
        'dd if="$1" of="$2" bs=512 skip="$3" count="$4" conv=sparse status=none',
        target,
        path,
        String(start),
        String(size),
      );
      return path;
    };
    const linux = await cut(2);
    await run('e2fsck', ['-fn', linux]);
    const inLinux = (path: string): Promise<string> =>
      sh('debugfs -R "cat $2" "$1" 2>/dev/null', linux, path);
    t.is(await inLinux('/etc/hostname'), 'lab-7\n');
    t.is(await inLinux('/etc/hosts'), '127.0.0.1 localhost\n127.0.1.1 lab-7\n');
    t.regex(await inLinux('/etc/machine-id'), /^[0-9a-f]{32}\n$/);
    t.not(await inLinux('/etc/machine-id'), `${OLD_ID}\n`);
    t.is(await inLinux('/var/lib/systemd/random-seed'), '');
    const key = join(bench.folder, 'key');
    await writeFile(key, await inLinux('/etc/ssh/ssh_host_rsa_key'), { mode: 0o600 });
    const derived = (await run('ssh-keygen', ['-y', '-f', key])).stdout;
    t.is(derived.trim(), (await inLinux('/etc/ssh/ssh_host_rsa_key.pub')).trim());
    t.not(
      await inLinux('/etc/ssh/ssh_host_rsa_key'),
      await readFile(join(bench.folder, 'linux/etc/ssh/ssh_host_rsa_key'), 'utf8'),
    );

    const windows = await cut(3);
    const hive = join(bench.folder, 'SYSTEM.deployed');
    await sh('ntfscat -f "$1" Windows/System32/config/SYSTEM > "$2"', windows, hive);
    t.is(await valueIn(hive, 'ControlSet001\\Control\\ComputerName\\ComputerName', 'ComputerName'), 'LAB-7');
    t.is(await valueIn(hive, 'ControlSet001\\Services\\Tcpip\\Parameters', 'NV Hostname'), 'lab-7');
    const moved = table[3].start * 512;
    t.true(moved > places.recovery.start, 'the recovery partition moved to the end');
    t.is(await sh('ntfscat -f "$1" Windows/System32/Recovery/ReAgent.xml', windows), reagent(moved));

    const esp = await cut(1);
    await run('fsck.fat', ['-n', esp]);
    t.is(await sh('mtype -i "$1" ::EFI/BOOT/BOOTX64.EFI', esp), 'MZ shim');
    t.is(await sh('mtype -i "$1" ::EFI/BOOT/grubx64.efi', esp), 'MZ grub');
  },
);

test.serial(
  'a name that the image’s Windows does not take is refused before anything is written',
  async (t) => {
    await bench.addHost('a-name-too-long-for-windows', '52:54:00:00:40:03');
    const target = join(bench.folder, 'refused.img');
    await run('truncate', ['-s', String(LARGER), target]);
    const id = await bench.addTask('a-name-too-long-for-windows', 'deploy', {
      image: 'golden',
      setHostname: true,
    });
    const machine = await bench.startAgent('52:54:00:00:40:03', {
      disks: [{ file: target, serial: 'DST' }],
      firmware: 'uefi',
    });
    const { disks } = await machine.waitForExit(WAIT);
    const { result } = await bench.ended(id);
    t.is(result.error?.code, 'OPTION_REFUSED');
    t.is(disks[0]?.writes, 0);
  },
);
