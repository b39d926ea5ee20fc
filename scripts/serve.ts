import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import pino from 'pino';
import { ImagingError, toImagingError } from '../agent/errors.ts';
import { buildInitramfs, OUTPUT, readArtefacts } from '../initramfs/build.ts';
import { type RunningServer, startServer } from '../server-stub/serve.ts';
import { startBootServer } from './lib/serve/dnsmasq-child.ts';
import { type Netboot, parseServeOptions, type ServeOptions } from './lib/serve/options.ts';
import type { Child } from './lib/vm/child.ts';

const log = pino({ level: 'info' }, pino.destination({ dest: 2, sync: true }));

const main = async (): Promise<void> => {
  const options = await parseServeOptions(process.argv.slice(2));
  const stop = untilSignal();
  const artefacts = options.artefacts === undefined ? await ensureArtefacts() : resolve(options.artefacts);
  const { data, host, port, registerUnknown, netboot } = options;
  const server = await startServer({ data, host, port, registerUnknown, artefacts, log });
  const folder = mkdtempSync(join(tmpdir(), 'fog-serve-'));
  let boot: Child | undefined;
  try {
    if (netboot) boot = await startNetboot(netboot, server, { artefacts, folder, data });
    introduce(options, server);
    await (boot ? Promise.race([stop, unexpectedEnd(boot)]) : stop);
  } finally {
    await boot?.stop();
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  }
};

const unexpectedEnd = async (boot: Child): Promise<never> => {
  const { code } = await boot.ended;
  throw new ImagingError('TOOL_FAILED', `Cannot go on: dnsmasq ended with exit code ${code}`);
};

const untilSignal = (): Promise<void> =>
  new Promise((done) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => done());
  });

const ensureArtefacts = async (): Promise<string> => {
  if ((await readArtefacts(OUTPUT)) === null) {
    console.log('Building kernel and initramfs, a few minutes the first time');
    await buildInitramfs({ log: (line) => console.log(line) });
  }
  return OUTPUT;
};

const startNetboot = (
  netboot: Netboot,
  server: RunningServer,
  { artefacts, folder, data }: { artefacts: string; folder: string; data: string },
): Promise<Child> =>
  startBootServer({
    artefacts,
    folder,
    interface: netboot.interface,
    serverUrl: bootUrl(netboot, server),
    mode: netboot.range ? 'dhcp' : 'proxy',
    subnet: netboot.subnet,
    range: netboot.range,
    router: netboot.router,
    dns: netboot.dns,
    leaseFile: netboot.range && resolve(data, 'dnsmasq.leases'),
    onLine: (line) => log.info({ from: 'dnsmasq' }, line.replace(/^dnsmasq(-\w+)?\[\d+\]: /, '')),
  });

const bootUrl = (netboot: Netboot, server: RunningServer): string =>
  `http://${netboot.address}:${server.port}`;

const introduce = ({ data, netboot }: ServeOptions, server: RunningServer): void => {
  const flags = [
    ...(data === 'data' ? [] : [`--data ${data}`]),
    ...(server.port === 8080 ? [] : [`--server ${server.url}`]),
  ];
  const command = ['scripts/fog-server', ...flags].join(' ');
  const boots = netboot
    ? `Machines on ${netboot.interface} boot from ${bootUrl(netboot, server)} (${
        netboot.range
          ? `DHCP ${netboot.range.first} to ${netboot.range.last}`
          : 'beside the DHCP server that is there'
      })`
    : 'No network boot: --interface NAME starts it, or see server-stub/netboot/README.md for your own DHCP server';
  console.log(
    [
      '',
      `Task server   ${netboot ? bootUrl(netboot, server) : server.url}`,
      `Admin token   in ${resolve(data, 'admin-token')}`,
      boots,
      '',
      'Next, in another terminal:',
      `  ${command} host add pc-01 52:54:00:12:34:56`,
      `  ${command} task add capture pc-01 --image office`,
      `  ${command} task list`,
      'Then start pc-01 from the network. Ctrl-C ends the server.',
      '',
    ].join('\n'),
  );
};

try {
  await main();
} catch (error) {
  const { code, message } = toImagingError(error);
  console.error(`${message} (${code})`);
  process.exitCode = code === 'CONFIG_INVALID' ? 2 : 1;
}
