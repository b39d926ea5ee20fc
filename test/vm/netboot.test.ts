import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { fastify } from 'fastify';
import { buildInitramfs, OUTPUT } from '../../initramfs/build.ts';
import { createLab, type Lab } from '../../scripts/lib/vm/lab.ts';
import { startMachine } from '../../scripts/lib/vm/machine.ts';
import type { BootDecision } from '../../server-stub/netboot/boot-decision.ts';
import { bootRoutes } from '../../server-stub/netboot/boot-routes.ts';
import { dnsmasqConfig } from '../../server-stub/netboot/dnsmasq.ts';
import { prepareTftp } from '../../server-stub/netboot/tftp.ts';
import { diskToken, makeBiosDisk, makeUefiDisk } from './netboot-disks.ts';

interface Case {
  firmware: 'bios' | 'uefi' | 'secureboot';
  dhcp: 'dhcp' | 'proxy';
  /** `idle`: no task; `task`: the agent is wanted; `down`: nobody answers at the server's address */
  server: 'idle' | 'task' | 'down';
}

const matrix = process.env['FOG_TEST_MATRIX'] === '1';
/** twice at least: a boot must not stand in the way of the next one */
const idleBoots = matrix ? 10 : 2;
/** emulated firmware on a busy host */
const BOOT_MS = 400_000;
const mac = '52:54:00:aa:bb:01';
const token = 'a-token-of-the-netboot-test-0123456789';

// each pair of (firmware, DHCP), (firmware, server), (DHCP, server) once
const pairs: Case[] = [
  { firmware: 'bios', dhcp: 'dhcp', server: 'idle' },
  { firmware: 'bios', dhcp: 'proxy', server: 'task' },
  { firmware: 'bios', dhcp: 'dhcp', server: 'down' },
  { firmware: 'uefi', dhcp: 'proxy', server: 'idle' },
  { firmware: 'uefi', dhcp: 'dhcp', server: 'task' },
  { firmware: 'uefi', dhcp: 'proxy', server: 'down' },
  { firmware: 'secureboot', dhcp: 'dhcp', server: 'idle' },
  { firmware: 'secureboot', dhcp: 'proxy', server: 'task' },
  { firmware: 'secureboot', dhcp: 'dhcp', server: 'down' },
];
const all = (['bios', 'uefi', 'secureboot'] as const).flatMap((firmware) =>
  (['dhcp', 'proxy'] as const).flatMap((dhcp) =>
    (['idle', 'task', 'down'] as const).map((server): Case => ({ firmware, dhcp, server })),
  ),
);

/** Where the disk's loader lies, and where inventory says it does. */
const loaderOf = ({ firmware, dhcp }: Case): { file: string; known?: string } => {
  if (firmware === 'bios') return { file: '' };
  if (firmware === 'secureboot') {
    return { file: 'EFI/debian/shimx64.efi', known: '\\EFI\\debian\\shimx64.efi' };
  }
  // no inventory: Windows has a fixed place, anything else is looked for
  return { file: dhcp === 'dhcp' ? 'EFI/Microsoft/Boot/bootmgfw.efi' : 'EFI/fedora/shimx64.efi' };
};

test.before(async (t) => {
  t.timeout(30 * 60_000);
  await buildInitramfs();
});

for (const one of matrix ? all : pairs) {
  const how = one.dhcp === 'dhcp' ? 'our own DHCP' : "proxyDHCP beside another's DHCP";
  const title = {
    idle: `a machine without a task starts its own disk, ${idleBoots} of ${idleBoots}, and neither kernel nor agent is loaded`,
    task: 'a machine with a task gets kernel, initramfs and its own archive, and its agent presents the token',
    down: 'a machine whose server is down starts its own disk',
  }[one.server];
  test.serial(`${one.firmware}, ${how}: ${title}`, async (t) => {
    t.timeout(30 * 60_000);
    const { lab, requests, checkedIn, url } = await setUp(t, one);
    const disk = join(lab.folder, 'disk.img');
    if (one.firmware === 'bios') makeBiosDisk(disk);
    else await makeUefiDisk(disk, OUTPUT, loaderOf(one).file);
    const tap = await lab.addTap();
    for (let boot = 0; boot < (one.server === 'idle' ? idleBoots : 1); boot += 1) {
      requests.length = 0;
      const machine = await startMachine({
        firmware: one.firmware,
        namespace: lab.namespace,
        memory: 1024,
        processors: 1,
        disks: [{ file: disk, readOnly: true }],
        nics: [{ mac, network: { kind: 'tap', interface: tap } }],
      });
      try {
        if (one.server === 'task') {
          const body = await Promise.race([checkedIn, machine.waitForExit({ timeoutMs: BOOT_MS })]);
          t.is(Reflect.get(body as object, 'token'), token, machine.console().slice(-2000));
          const fetched = requests.filter((path) => /vmlinuz|initrd|site/.test(path));
          t.deepEqual(
            fetched.map((path) => path.replace(/[0-9a-f]{32}/, 'HANDLE')),
            ['/boot/vmlinuz', '/boot/initrd.img', '/boot/site/HANDLE.cpio'],
          );
        } else {
          const exit = await machine.waitForExit({ timeoutMs: BOOT_MS });
          t.true(machine.console().includes(diskToken), machine.console().slice(-2000));
          t.is(exit.reason, 'guest-reset');
          t.is(exit.disks[0]?.writes, 0);
          t.deepEqual(
            requests.filter((path) => /vmlinuz|initrd|site/.test(path)),
            [],
          );
          t.is(requests.includes(askedFor(one)), one.server === 'idle', requests.join(' '));
        }
        if (one.firmware !== 'bios' && one.server === 'idle') {
          t.true(machine.console().includes(`fog: starting (hd0,gpt1)/${loaderOf(one).file}`));
        }
      } finally {
        await machine.kill();
      }
    }
    t.log(`${url}: ${requests.join(' ') || 'no request'}`);
  });
}

const askedFor = ({ firmware }: Case): string =>
  firmware === 'bios' ? '/boot/ipxe' : `/boot/grub/${mac}.cfg`;

interface Network {
  lab: Lab;
  url: string;
  /** paths, as they were asked for */
  requests: string[];
  /** the body of the agent's first request */
  checkedIn: Promise<unknown>;
}

const setUp = async (t: ExecutionContext, one: Case): Promise<Network> => {
  const { dhcp, server } = one;
  const lab = await createLab();
  t.teardown(lab.close);
  const requests: string[] = [];
  const checkedIn = Promise.withResolvers<unknown>();
  const app = fastify({ forceCloseConnections: true });
  t.teardown(() => app.close());
  app.addHook('onRequest', async ({ url }) => void requests.push(url));
  const { known } = loaderOf(one);
  const disk: BootDecision = known === undefined ? { kind: 'disk' } : { kind: 'disk', efiLoader: known };
  await app.register(
    bootRoutes({
      decide: async () => (server === 'task' ? { kind: 'agent', token } : disk),
      artefactsFolder: OUTPUT,
      siteFor: (given, serverUrl) => ({ server: serverUrl, token: given, publicKey: 'none' }),
      log: { info: () => undefined, warn: () => undefined },
    }),
  );
  app.get('/healthz', async () => ({ ok: true }));
  app.post('/agent/v1/check-in', async ({ body }, reply) => {
    checkedIn.resolve(body);
    return reply.code(503).send({});
  });
  const url = `http://${lab.hostAddress}:8080`;
  if (server !== 'down') await app.listen({ host: lab.hostAddress, port: 8080 });
  const tftpRoot = join(lab.folder, 'tftp');
  await prepareTftp(OUTPUT, tftpRoot, url);
  await lab.startDnsmasq(
    dnsmasqConfig({
      interface: lab.bridge,
      serverUrl: url,
      tftpRoot,
      mode: dhcp,
      subnet: `${lab.network}.0/24`,
      ...(dhcp === 'dhcp' ? { range: { first: `${lab.network}.50`, last: `${lab.network}.90` } } : {}),
    }),
  );
  if (dhcp === 'proxy') await lab.startForeignDhcp();
  return { lab, url, requests, checkedIn: checkedIn.promise };
};
