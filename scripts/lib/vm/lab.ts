import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ImagingError } from '../../../agent/errors.ts';
import { run } from '../../../agent/process/run.ts';
import { type Child, startChild } from './child.ts';

export interface LabOptions {
  /** third and second octet of the network 10.x.y.0/24; default random in 10.64-127 */
  network?: string;
  /** default true: answer IPv6 router solicitations, without which iPXE of 2019 waits 16 s for one */
  routerAdvertisements?: boolean;
}

/**
 * A wire of its own for machines: a bridge in a network namespace, taps for machines, DHCP servers,
 * and a cable to this process, so that a server listening on `hostAddress` is reached from the wire.
 */
export interface Lab {
  readonly namespace: string;
  readonly bridge: string;
  /** first three octets: "10.77.3" */
  readonly network: string;
  /** the bridge's own address, where dnsmasq and other servers in the namespace live */
  readonly address: string;
  /** an address of this host on the same wire, outside the namespace */
  readonly hostAddress: string;
  readonly folder: string;
  /** a new tap on the bridge, for `nics: [{network: {kind: 'tap', interface}}]` */
  addTap(): Promise<string>;
  /** a dnsmasq inside the namespace with this configuration, listening on the bridge */
  startDnsmasq(config: string): Promise<Child>;
  /** another host on the wire, interface eth0 in a namespace of its own, whose name is returned */
  addStation(name: string, address: string): Promise<string>;
  /** somebody else's DHCP server on the same wire, which knows nothing of network boot */
  startForeignDhcp(): Promise<Child>;
  /** run a tool inside the namespace */
  run(tool: string, args: readonly string[]): Promise<string>;
  close(): Promise<void>;
}

let labs = 0;

/** @throws ImagingError TOOL_FAILED (not root, no namespaces) */
export const createLab = async (options: LabOptions = {}): Promise<Lab> => {
  await removeStaleLabs();
  labs += 1;
  const namespace = `fog-lab-${process.pid}-${Date.now().toString(36)}${labs}`;
  const network = options.network ?? `10.${64 + random(64)}.${random(256)}`;
  const address = `${network}.1`;
  const hostAddress = `${network}.2`;
  const bridge = 'br0';
  const folder = mkdtempSync(join(tmpdir(), 'fog-lab-'));
  // dnsmasq serves as a user who owns nothing
  chmodSync(folder, 0o755);
  const children: Child[] = [];
  const stations: string[] = [];
  let taps = 0;

  const inside = async (tool: string, args: readonly string[]): Promise<string> =>
    (await run('ip', ['netns', 'exec', namespace, tool, ...args])).stdout;

  const close = async (): Promise<void> => {
    for (const child of children) await child.stop({ graceMs: 1000 });
    for (const one of [...stations, namespace]) await run('ip', ['netns', 'delete', one]);
    rmSync(folder, { recursive: true, force: true });
  };

  await run('ip', ['netns', 'add', namespace]);
  try {
    const cable = `fg${Math.random().toString(36).slice(2, 10)}`;
    await inside('ip', ['link', 'set', 'lo', 'up']);
    await inside('ip', ['link', 'add', bridge, 'type', 'bridge', 'stp_state', '0', 'forward_delay', '0']);
    await inside('ip', ['addr', 'add', `${address}/24`, 'brd', '+', 'dev', bridge]);
    await run('ip', ['link', 'add', cable, 'type', 'veth', 'peer', 'name', 'host', 'netns', namespace]);
    await inside('ip', ['link', 'set', 'host', 'master', bridge, 'up']);
    await inside('ip', ['link', 'set', bridge, 'up']);
    await run('ip', ['addr', 'add', `${hostAddress}/24`, 'brd', '+', 'dev', cable]);
    await run('ip', ['link', 'set', cable, 'up']);
  } catch (error) {
    await close();
    throw error;
  }

  const addStation = async (name: string, stationAddress: string): Promise<string> => {
    const station = `${namespace}-${name}`;
    await run('ip', ['netns', 'add', station]);
    stations.push(station);
    const outside = async (...args: string[]): Promise<unknown> =>
      run('ip', ['netns', 'exec', station, 'ip', ...args]);
    await inside('ip', ['link', 'add', name, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', station]);
    await inside('ip', ['link', 'set', name, 'master', bridge, 'up']);
    await outside('addr', 'add', `${stationAddress}/24`, 'brd', '+', 'dev', 'eth0');
    await outside('link', 'set', 'eth0', 'up');
    // for those who ask without an address yet, as DHCP clients do
    await outside('route', 'add', '255.255.255.255', 'dev', 'eth0');
    return station;
  };

  const startDnsmasqIn = async (where: string, config: string): Promise<Child> => {
    const file = join(folder, `dnsmasq-${children.length}.conf`);
    writeFileSync(file, config);
    let child: Child | undefined;
    await new Promise<void>((resolve, reject) => {
      child = startChild('dnsmasq', ['--keep-in-foreground', '--log-facility=-', `--conf-file=${file}`], {
        namespace: where,
        // its first line after it has bound its sockets
        onLine: (line) => (/: started/.test(line) ? resolve() : undefined),
      });
      void child.ended.then(() => {
        reject(new ImagingError('TOOL_FAILED', `Cannot start dnsmasq: ${child?.output().trim()}`));
      });
    });
    children.push(child as Child);
    return child as Child;
  };

  if (options.routerAdvertisements !== false) {
    await inside('ip', ['addr', 'add', 'fd00:f09::1/64', 'dev', bridge, 'nodad']);
    await startDnsmasqIn(namespace, advertiserConfig(bridge));
  }

  return {
    ...{ namespace, bridge, network, address, hostAddress, folder, close, run: inside },
    addTap: async () => {
      const tap = `tap${taps++}`;
      await inside('ip', ['tuntap', 'add', 'dev', tap, 'mode', 'tap']);
      await inside('ip', ['link', 'set', tap, 'master', bridge, 'up']);
      return tap;
    },
    startDnsmasq: (config) => startDnsmasqIn(namespace, config),
    addStation,
    startForeignDhcp: async () =>
      startDnsmasqIn(await addStation('router', `${network}.254`), foreignDhcpConfig(network)),
  };
};

/** A router as schools have them: addresses, gateway, no boot options. */
const foreignDhcpConfig = (network: string): string =>
  [
    ...['port=0', 'no-resolv', 'no-hosts', 'interface=eth0', 'bind-interfaces', 'log-dhcp', 'user=root'],
    ...[
      'leasefile-ro',
      'no-ping',
      'dhcp-authoritative',
      `dhcp-range=${network}.100,${network}.150,255.255.255.0,1h`,
    ],
    `dhcp-option=option:router,${network}.254`,
    '',
  ].join('\n');

/** Says that there is no IPv6 router here: lifetime 0. */
const advertiserConfig = (bridge: string): string =>
  [
    ...[
      'port=0',
      'no-resolv',
      'no-hosts',
      `interface=${bridge}`,
      'bind-interfaces',
      'leasefile-ro',
      'user=root',
    ],
    ...['enable-ra', `ra-param=${bridge},60,0`, `dhcp-range=::,constructor:${bridge},ra-only`, ''],
  ].join('\n');

/** Namespaces of test processes that were killed: their process is gone. */
const removeStaleLabs = async (): Promise<void> => {
  const { stdout } = await run('ip', ['netns', 'list']);
  for (const [name, pid] of stdout.matchAll(/^fog-lab-(\d+)-[a-z0-9-]+/gm)) {
    if (!isAlive(Number(pid))) await run('ip', ['netns', 'delete', name]);
  }
};

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

const random = (below: number): number => Math.floor(Math.random() * below);
