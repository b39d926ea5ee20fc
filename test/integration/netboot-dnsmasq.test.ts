import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { run } from '../../agent/process/run.ts';
import { root } from '../../scripts/lib/root.ts';
import { type Child, startChild } from '../../scripts/lib/vm/child.ts';
import { createLab, type Lab } from '../../scripts/lib/vm/lab.ts';
import { bootLoaders } from '../../server-stub/netboot/artefacts.ts';
import { dnsmasqConfig } from '../../server-stub/netboot/dnsmasq.ts';
import { prepareTftp } from '../../server-stub/netboot/tftp.ts';
import type { Offer, Probe } from './pxe-probe.ts';

const url = 'http://192.0.2.1:8080';

for (const mode of ['dhcp', 'proxy'] as const) {
  test(`dnsmasq accepts the configuration for ${mode}`, async (t) => {
    const folder = temporary(t);
    const file = join(folder, 'dnsmasq.conf');
    const options = { interface: 'lo', serverUrl: url, tftpRoot: folder, subnet: '192.0.2.0/24', mode };
    const range = { first: '192.0.2.10', last: '192.0.2.20' };
    const more = { range, router: '192.0.2.254', dns: '192.0.2.253', leaseFile: join(folder, 'leases') };
    writeFileSync(file, dnsmasqConfig(mode === 'dhcp' ? { ...options, ...more } : options));
    const { stderr } = await run('dnsmasq', ['--test', `--conf-file=${file}`]);
    t.regex(stderr, /syntax check OK/);
  });
}

test('a TFTP folder cannot be made of artefacts that are not built', async (t) => {
  const folder = temporary(t);
  await t.throwsAsync(prepareTftp(folder, join(folder, 'tftp'), url), { code: 'NOT_FOUND' });
});

test('our own DHCP: each firmware is offered an address and its loader, iPXE the script', async (t) => {
  const { lab, probe } = await setUp(t, 'dhcp');
  const offered = async (question: Partial<Probe>): Promise<Offer | undefined> => {
    const offers = (await probe({ ...discover, ...question } as Probe)) as Offer[];
    t.true(offers.length <= 1);
    return offers[0];
  };
  const server = { from: lab.address, nextServer: lab.address };
  t.like(await offered({ architecture: 0 }), { ...server, file: 'undionly.kpxe' });
  const uefi = await offered({ architecture: 7 });
  t.like(uefi, { ...server, file: 'shimx64.efi' });
  t.regex(uefi?.address ?? '', new RegExp(`^${lab.network}\\.[5-9][0-9]$`));
  t.like(await offered({ architecture: 9 }), { ...server, file: 'shimx64.efi' });
  t.like(await offered({ architecture: 0, userClass: 'iPXE' }), { file: `${url}/boot/ipxe` });
  t.like(await offered({ architecture: 7, userClass: 'iPXE' }), { file: `${url}/boot/ipxe` });
  t.like(await offered({ architecture: 16, vendor: 'HTTPClient' }), {
    file: `${url}/boot/files/shimx64.efi`,
    vendor: 'HTTPClient',
  });
  t.is(
    (await offered({ architecture: 11 }))?.file,
    '',
    'ARM gets an address and no loader of another machine',
  );
});

test("proxyDHCP: another's server gives the address, ours only what boots, in its second answer", async (t) => {
  const { lab, probe } = await setUp(t, 'proxy');
  await lab.startForeignDhcp();
  const offers = (await probe({ ...discover, architecture: 7, answers: 2 })) as Offer[];
  const foreign = offers.find(({ from }) => from === `${lab.network}.254`);
  t.regex(foreign?.address ?? '', new RegExp(`^${lab.network}\\.1[0-9][0-9]$`));
  t.is(foreign?.file, '');
  t.like(
    offers.find(({ from }) => from === lab.address),
    { address: '0.0.0.0', vendor: 'PXEClient' },
  );
  const second = { kind: 'boot-server', server: lab.address, own: `${lab.network}.200` } as const;
  t.like(((await probe({ ...second, architecture: 7 })) as Offer[])[0], {
    file: 'shimx64.efi',
    nextServer: lab.address,
  });
});

test('a machine that does not boot from the network gets nothing from proxyDHCP', async (t) => {
  const { probe } = await setUp(t, 'proxy');
  t.deepEqual(await probe({ ...discover, architecture: 16, vendor: 'HTTPClient' }), []);
});

test('TFTP gives out the loaders and the two scripts, and nothing outside its folder', async (t) => {
  const { lab, probe } = await setUp(t, 'dhcp');
  const read = async (name: string): Promise<string> =>
    Buffer.from((await probe({ kind: 'tftp', server: lab.address, name })) as string, 'base64').toString();
  t.is(await read('shimx64.efi'), content('shimx64.efi'));
  t.true(
    (await read('grub/grub.cfg')).includes(
      `source "(http,192.0.2.1:8080)/boot/grub/\${net_default_mac}.cfg"`,
    ),
  );
  t.true((await read('autoexec.ipxe')).startsWith('#!ipxe\n'));
  await t.throwsAsync(read('../dnsmasq-1.conf'));
  await t.throwsAsync(read('no-such-file'));
});

test('scripts/serve starts server and dnsmasq, says what to do next, and leaves nothing running', async (t) => {
  const { lab, serve, data } = await startServe(t);
  t.regex(serve.output(), new RegExp(`Task server +http://${lab.address}:8080`), serve.output());
  t.true(serve.output().includes(join(data, 'admin-token')));
  t.true(existsSync(join(data, 'admin-token')));
  const station = await lab.addStation('client', `${lab.network}.200`);
  const offers = (await ask(station, { ...discover, architecture: 7 })) as Offer[];
  t.like(offers[0], { file: 'shimx64.efi', nextServer: lab.address });
  await serve.stop({ graceMs: 20_000 });
  t.deepEqual(await serve.ended, { code: 0, signal: null });
  t.is((await run('ip', ['netns', 'pids', lab.namespace])).stdout, '', 'no process is left in the namespace');
});

test('scripts/serve ends with the reason when its dnsmasq ends, and when dnsmasq cannot start', async (t) => {
  const { lab, serve } = await startServe(t);
  const { stdout } = await run('ip', ['netns', 'pids', lab.namespace]);
  for (const pid of stdout.trim().split('\n')) {
    if (readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === 'dnsmasq') process.kill(Number(pid), 'SIGKILL');
  }
  t.is((await serve.ended).code, 1, serve.output());
  t.regex(serve.output(), /Cannot go on: dnsmasq ended/);
  const outside = await startServe(t, '10.1.1.1,10.1.1.9');
  t.is((await outside.serve.ended).code, 2, outside.serve.output());
  t.regex(outside.serve.output(), /Cannot use address "10\.1\.1\.1"/);
});

/** scripts/serve in a namespace of its own, as far as it gets. */
const startServe = async (
  t: ExecutionContext,
  givenRange?: string,
): Promise<{ lab: Lab; serve: Child; data: string }> => {
  const lab = await createLab({ routerAdvertisements: false });
  t.teardown(lab.close);
  const { artefacts, folder } = fakeArtefacts(t);
  const data = join(folder, 'data');
  const range = givenRange ?? `${lab.network}.50,${lab.network}.90`;
  const args = ['--data', data, '--artefacts', artefacts, '--interface', lab.bridge, '--dhcp-range', range];
  const serve = startChild(process.execPath, [join(root, 'scripts/serve.ts'), ...args], {
    namespace: lab.namespace,
  });
  t.teardown(serve.kill);
  await until(() => !serve.isRunning() || serve.output().includes('Ctrl-C ends the server'));
  return { lab, serve, data };
};

const discover = {
  kind: 'discover',
  architecture: 0,
  vendor: 'PXEClient',
  answers: 1,
  waitMs: 10_000,
} as const;

const content = (name: string): string => `${name} `.repeat(200);

const temporary = (t: ExecutionContext): string => {
  const folder = mkdtempSync(join(tmpdir(), 'fog-netboot-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
};

const fakeArtefacts = (t: ExecutionContext): { artefacts: string; folder: string } => {
  const folder = temporary(t);
  const artefacts = join(folder, 'artefacts');
  mkdirSync(artefacts);
  for (const name of bootLoaders) writeFileSync(join(artefacts, name), content(name));
  return { artefacts, folder };
};

const setUp = async (
  t: ExecutionContext,
  mode: 'dhcp' | 'proxy',
): Promise<{ lab: Lab; probe: (question: Probe) => Promise<unknown> }> => {
  const lab = await createLab({ routerAdvertisements: false });
  t.teardown(lab.close);
  const tftpRoot = join(lab.folder, 'tftp');
  await prepareTftp(fakeArtefacts(t).artefacts, tftpRoot, url);
  const subnet = `${lab.network}.0/24`;
  const range = { first: `${lab.network}.50`, last: `${lab.network}.90` };
  const dnsmasq = await lab.startDnsmasq(
    dnsmasqConfig({
      ...{ interface: lab.bridge, serverUrl: url, tftpRoot, mode, subnet },
      ...(mode === 'dhcp' ? { range } : {}),
    }),
  );
  const station = await lab.addStation('client', `${lab.network}.200`);
  t.teardown(() => {
    if (!t.passed) t.log(dnsmasq.output());
  });
  return { lab, probe: (question) => ask(station, question) };
};

const ask = async (namespace: string, question: Probe): Promise<unknown> => {
  const program = join(root, 'test/integration/pxe-probe.ts');
  const { stdout } = await run('ip', [
    'netns',
    'exec',
    namespace,
    process.execPath,
    program,
    JSON.stringify(question),
  ]);
  return JSON.parse(stdout);
};

const until = async (condition: () => boolean): Promise<void> => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 50));
};
