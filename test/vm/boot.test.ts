import { createReadStream } from 'node:fs';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { run } from '../../agent/process/run.ts';
import { AGENT_ENTRIES } from '../../initramfs/build/agent-layer.ts';
import { makeCpio } from '../../initramfs/build/archive.ts';
import { hashFile } from '../../initramfs/build/cache.ts';
import { concatenate } from '../../initramfs/build/concatenate.ts';
import { type Artefacts, buildInitramfs } from '../../initramfs/build.ts';
import { type Machine, startMachine } from '../../scripts/lib/vm/machine.ts';
import { openShell } from './shell.ts';

// Direct kernel boot of the initramfs, with a stand-in for the task server on this host (10.0.2.2 in the guest).

const BOOT_MS = 300_000;
const TOKEN = 'a-token-that-nobody-may-print';
const CONSOLES = 'console=tty0 console=ttyS0,115200';

let folder: string;
let initrd: string;
let artefacts: Artefacts;
let server: Server;
let url: string;
/** resolves when the agent shows the server its token from site.json */
const checkedIn = Promise.withResolvers<void>();
/** md mirror whose resync was cut off (two disks), volume group, ext4 with a dirty journal in a GPT partition */
const disks: string[] = [];

test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fog-boot-'));
  artefacts = await buildInitramfs({
    out: join(folder, 'initramfs'),
    entries: {
      ...AGENT_ENTRIES,
      'use-pack': join(import.meta.dirname, '../fixtures/initramfs/use-pack.ts'),
    },
  });
  server = createServer((request, response) => {
    if (request.url === '/healthz') return void response.end('ok');
    const pack = /^\/packs\/([0-9a-f]{64})$/.exec(request.url ?? '')?.[1];
    if (pack) return void createReadStream(join(folder, `initramfs/packs/${pack}.squashfs`)).pipe(response);
    let body = '';
    request.on('data', (part: Buffer) => {
      body += part;
    });
    request.on('end', () => {
      if (request.url === '/agent/v1/check-in' && body.includes(TOKEN)) checkedIn.resolve();
      response.writeHead(503).end();
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  url = `http://10.0.2.2:${(server.address() as AddressInfo).port}`;
  initrd = await initrdWithSite();
  await makeDisks();
});

test.after.always(async () => {
  server?.close();
  if (folder) await rm(folder, { recursive: true, force: true });
});

/** The archive with a per-boot site.json behind it, as boot loaders put them into memory. */
const initrdWithSite = async (): Promise<string> => {
  const site = join(folder, 'site');
  await run('install', ['-d', '-m', '0700', join(site, 'fog')]);
  const text = JSON.stringify({ server: url, token: TOKEN, publicKey: 'bm90IGEga2V5' });
  await writeFile(join(site, 'fog/site.json'), text, { mode: 0o600 });
  await makeCpio(site, ['fog', 'fog/site.json'], join(folder, 'site.cpio'));
  const to = join(folder, 'initrd.img');
  await concatenate([join(folder, 'initramfs/initrd.img'), join(folder, 'site.cpio')], to);
  return to;
};

interface BootOptions {
  words?: string;
  memory?: number;
  arguments?: string[];
  nics?: [];
  disks?: string[];
}

const boot = (options: BootOptions): Promise<Machine> =>
  startMachine({
    memory: options.memory ?? 1024,
    kernel: {
      image: join(folder, 'initramfs/vmlinuz'),
      initrd,
      commandLine: `${CONSOLES} ${options.words ?? ''}`,
    },
    disks: (options.disks ?? []).map((file, index) => ({ file, serial: `disk-${index}` })),
    ...(options.nics ? { nics: options.nics } : {}),
    ...(options.arguments ? { arguments: options.arguments } : {}),
  });

/** Made by a machine whose power is cut: this host may have neither md nor device-mapper. */
const makeDisks = async (): Promise<void> => {
  for (let index = 0; index < 4; index += 1) {
    const file = join(folder, `disk${index}.img`);
    await writeFile(file, '');
    await truncate(file, 64 * 1024 * 1024);
    disks.push(file);
  }
  const machine = await boot({ words: 'fog.debug', disks });
  try {
    const sh = await openShell(machine, { timeoutMs: BOOT_MS });
    await sh('for d in vda vdb vdc vdd; do blockdev --setrw /dev/$d; touch /run/fog/claims/$d; done');
    await sh(
      'modprobe -a raid1 md_mod; echo 1 >/proc/sys/dev/raid/speed_limit_max; echo 0 >/sys/module/md_mod/parameters/start_ro',
    );
    await sh('mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.2 /dev/vda /dev/vdb');
    await sh(
      'pvcreate -qy /dev/vdc; vgcreate -qy vg0 /dev/vdc; lvcreate -qy -L 16M -n data vg0; mkfs.ext4 -q /dev/vg0/data',
    );
    await sh(
      "echo 'label: gpt\n,,L' | sfdisk -q /dev/vdd; udevadm settle; mkfs.ext4 -q /dev/vdd1; mkdir -p /mnt/x; mount /dev/vdd1 /mnt/x",
    );
    await sh('cp -r /usr/share/misc /mnt/x/; sync; cp -r /etc /mnt/x/; sync -d /mnt/x/etc/passwd');
    const state = await sh('cat /proc/mdstat; vgs --noheadings -o vg_name; grep vdd1 /proc/mounts');
    if (!/resync/.test(state) || !/vg0/.test(state) || !/ext4 rw/.test(state)) {
      throw new Error(`Cannot prepare the disks: ${state}\n${machine.console().slice(-3000)}`);
    }
  } finally {
    await machine.kill();
  }
  const { stdout } = await run('dumpe2fs', ['-h', `${disks[3]}?offset=1048576`]);
  if (!stdout.includes('needs_recovery')) throw new Error('Cannot prepare the disks: the journal is clean');
};

/** A card whose network answers DHCP but leads nowhere, one that nobody answers on, and the one that reaches us. */
const threeCards = [
  ...[
    '-netdev',
    'user,id=nowhere,restrict=on,net=192.168.77.0/24',
    '-device',
    'e1000,netdev=nowhere,mac=52:54:00:00:00:01',
  ],
  ...['-netdev', 'hubport,id=silent,hubid=7', '-device', 'e1000,netdev=silent,mac=52:54:00:00:00:02'],
  ...['-netdev', 'user,id=good', '-device', 'virtio-net-pci,netdev=good,mac=52:54:00:00:00:03'],
];

test.serial(
  'a 1 GiB machine with disks in every bad state reaches the agent and writes nothing',
  async (t) => {
    const before = await Promise.all(disks.map(hashFile));
    const machine = await boot({
      disks,
      nics: [],
      arguments: [...threeCards, '-rtc', 'base=2020-01-01T00:00:00'],
    });
    t.teardown(() => machine.kill());
    const [line] = await machine.waitForConsole(/Started in [^\n]*/, { timeoutMs: BOOT_MS });
    t.log(line);
    await Promise.race([checkedIn.promise, machine.waitForExit({ timeoutMs: BOOT_MS })]);
    const text = machine.console();
    t.regex(text, /Network: \S+, 10\.0\.2\.15\/24, server answers/);
    t.regex(text, /Clock set by the server: it was \d+ s slow/);
    t.false(text.includes(TOKEN), 'the token was printed');
    t.deepEqual(
      (await machine.blockstats()).map(({ writes, writtenBytes }) => ({ writes, writtenBytes })),
      disks.map(() => ({ writes: 0, writtenBytes: 0 })),
    );
    await machine.kill();
    t.deepEqual(await Promise.all(disks.map(hashFile)), before);
  },
);

test.serial('at its shell every disk is read-only, nothing is assembled, and tool packs work', async (t) => {
  const before = await Promise.all(disks.map(hashFile));
  const machine = await boot({ words: 'fog.debug', disks });
  t.teardown(() => machine.kill());
  const sh = await openShell(machine, { timeoutMs: BOOT_MS });
  const flags = await sh(
    "cd /sys/class/block; for n in vd*; do echo $n=$(cat $n/ro); done | tr '\\n' ' '; cd /",
  );
  t.is(flags, 'vda=1 vdb=1 vdc=1 vdd=1 vdd1=1');
  t.is(await sh('dd if=/dev/zero of=/dev/vda count=1 2>&1 | grep -o "not permitted"'), 'not permitted');
  t.is(await sh('mount /dev/vdd1 /mnt 2>/dev/null; echo $?'), '32');
  t.is(await sh('cd /dev; ls -d md* mapper/* 2>/dev/null; cd /'), 'mapper/control');
  t.is(await sh('grep -c active /proc/mdstat 2>/dev/null || echo none'), 'none');
  t.is(await sh('wc -l </proc/swaps'), '1');
  t.regex(await sh('vgs --noheadings -o vg_name'), /vg0/);
  t.is(await sh('stat -c %a%u /fog/site.json'), '6000');
  t.regex(await sh('/usr/lib/fog/node -v'), /^v24\./);
  t.regex(await sh('fog --version'), /^\d+\.\d+\.\d+\+[0-9a-f]{12}$/);
  t.is(await sh('tty'), '/dev/ttyS0');

  const pack = artefacts.packs['testdisk'];
  if (!pack) throw new Error('Cannot test tool packs: there is none');
  const use = (sha256: string): string =>
    `/usr/lib/fog/node /usr/lib/fog/agent/use-pack.mjs ${url}/packs/${pack.sha256} testdisk ${sha256} ${pack.size}`;
  t.is(await sh('command -v testdisk || echo absent'), 'absent');
  t.is(await sh(use('0'.repeat(64))), 'pack refused: CHUNK_CORRUPT');
  t.is(await sh('command -v testdisk || echo absent'), 'absent');
  t.is(await sh(use(pack.sha256)), 'pack in use');
  t.is(await sh(use(pack.sha256)), 'pack in use');
  t.regex(await sh('testdisk /version 2>&1'), /TestDisk 7/);

  t.deepEqual(
    (await machine.blockstats()).map(({ writes }) => writes),
    disks.map(() => 0),
  );
  await machine.kill();
  t.deepEqual(await Promise.all(disks.map(hashFile)), before);
});

test.serial('a machine whose network leads nowhere says what each card did and keeps trying', async (t) => {
  const machine = await boot({ nics: [], arguments: [...threeCards.slice(0, 8)] });
  t.teardown(() => machine.kill());
  await machine.waitForConsole(/No interface reaches http:(?:.|\n)*No interface reaches http:/, {
    timeoutMs: BOOT_MS,
  });
  const text = machine.console();
  t.regex(text, /52:54:00:00:00:01 e1000: link, address 192\.168\.77\.\d+\/24, server does not answer/);
  t.regex(text, /52:54:00:00:00:02 e1000: .*no DHCP answer/);
});

test.serial('a machine with too little memory says so and does not panic', async (t) => {
  const machine = await boot({ memory: 640 });
  t.teardown(() => machine.kill());
  const [line] = await machine.waitForConsole(/Cannot start the imaging agent: [^*]*/, {
    timeoutMs: BOOT_MS,
  });
  t.regex(line, /this machine has \d+ MiB of memory, 1024 MiB are needed/);
  t.notRegex(machine.console(), /Kernel panic/);
});
