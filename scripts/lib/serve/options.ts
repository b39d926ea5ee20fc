import { networkInterfaces } from 'node:os';
import yargs from 'yargs';
import { ImagingError } from '../../../agent/errors.ts';

export interface ServeOptions {
  data: string;
  host: string;
  port: number;
  registerUnknown: boolean;
  artefacts: string | undefined;
  netboot: Netboot | undefined;
}

export interface Netboot {
  interface: string;
  /** IPv4 address of the interface: where machines find server and TFTP */
  address: string;
  /** its network, `192.168.1.0/24` */
  subnet: string;
  range: { first: string; last: string } | undefined;
  router: string | undefined;
  dns: string | undefined;
}

/** The command line of scripts/serve. @throws ImagingError CONFIG_INVALID */
export const parseServeOptions = async (args: readonly string[]): Promise<ServeOptions> => {
  const argv = await yargs(args)
    .scriptName('scripts/serve')
    .usage('$0 [--interface eth0 [--dhcp-range FIRST,LAST]]')
    .usage('The task server; with --interface also network boot, beside the DHCP server that is there')
    .usage('(proxyDHCP), or with --dhcp-range as the only DHCP server.')
    .option('data', { type: 'string', default: process.env['FOG_DATA'] ?? 'data', describe: 'data folder' })
    .option('port', { type: 'number', default: 8080 })
    .option('host', { type: 'string', default: '0.0.0.0', describe: 'address to listen on' })
    .option('interface', { type: 'string', describe: 'network interface that machines boot from' })
    .option('dhcp-range', { type: 'string', describe: 'give addresses too: FIRST,LAST' })
    .option('router', { type: 'string', describe: 'with --dhcp-range: default gateway to announce' })
    .option('dns', { type: 'string', describe: 'with --dhcp-range: name server to announce' })
    .option('register', { type: 'boolean', default: false, describe: 'register unknown machines that boot' })
    .option('artefacts', { type: 'string', describe: 'kernel, initramfs, boot loaders; built if missing' })
    .strict()
    .version(false)
    .exitProcess(false)
    .fail((message, error) => {
      throw new ImagingError('CONFIG_INVALID', `Cannot serve: ${message ?? String(error)}`);
    })
    .parseAsync();
  if (argv['help']) process.exit(0);
  if (argv.dhcpRange !== undefined && argv.interface === undefined) {
    throw new ImagingError('CONFIG_INVALID', 'Cannot give addresses: --dhcp-range needs --interface');
  }
  const { data, host, port, artefacts } = argv;
  const network = argv.interface === undefined ? undefined : interfaceNetwork(argv.interface);
  return {
    ...{ data, host, port, artefacts, registerUnknown: argv.register },
    netboot: network && {
      ...network,
      range: argv.dhcpRange === undefined ? undefined : parseRange(argv.dhcpRange),
      router: argv.router,
      dns: argv.dns,
    },
  };
};

/** @throws ImagingError CONFIG_INVALID: no such interface, or it has no IPv4 address */
const interfaceNetwork = (name: string): Pick<Netboot, 'interface' | 'address' | 'subnet'> => {
  const all = networkInterfaces();
  const found = all[name]?.find(({ family }) => family === 'IPv4');
  if (found?.cidr) return { interface: name, address: found.address, subnet: found.cidr };
  const usable = Object.entries(all).filter(([, list]) =>
    list?.some((one) => one.family === 'IPv4' && !one.internal),
  );
  throw new ImagingError(
    'CONFIG_INVALID',
    `Cannot boot machines from ${name}: no such interface with an IPv4 address (there is ${usable.map(([one]) => one).join(', ') || 'none'})`,
  );
};

const parseRange = (text: string): { first: string; last: string } => {
  const [first, last, ...rest] = text.split(',');
  if (first && last && rest.length === 0) return { first, last };
  throw new ImagingError('CONFIG_INVALID', `Cannot use the range "${text}": FIRST,LAST is meant`);
};
