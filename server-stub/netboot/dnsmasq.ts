import { isIPv4 } from 'node:net';
import { ImagingError } from '../../agent/errors.ts';
import { parseServerUrl } from './words.ts';

export interface DnsmasqOptions {
  interface: string;
  /** as firmware reaches the server: `http://HOST[:PORT]` */
  serverUrl: string;
  /** folder made by `prepareTftp`, absolute */
  tftpRoot: string;
  /**
   * `proxy`: another DHCP server gives addresses, this one adds only what network boot needs.
   * `dhcp`: this one gives addresses too, from `range`; there must be no other.
   */
  mode: 'proxy' | 'dhcp';
  /** the interface's network, `192.168.1.0/24` */
  subnet: string;
  range?: { first: string; last: string } | undefined;
  router?: string | undefined;
  dns?: string | undefined;
  /** where leases survive a restart; without it they are kept in memory */
  leaseFile?: string | undefined;
}

/*
 * Client architectures, RFC 4578 and IANA's "Processor Architecture Types": 0 BIOS, 7 UEFI x64 (9 is the
 * same in the RFC's first text, and firmware of both readings exists), 16 UEFI x64 over HTTP.
 */
const ARCHITECTURES = { bios: [0], efi: [7, 9], http: [16] } as const;

/**
 * The configuration of a dnsmasq (2.90) that only serves network boot: no DNS, TFTP from `tftpRoot`.
 * BIOS gets iPXE (`undionly.kpxe`), UEFI gets shim, which loads GRUB, with Secure Boot or without. A client
 * that says it is iPXE already is sent to the server's script.
 *
 * @throws ImagingError CONFIG_INVALID
 */
export const dnsmasqConfig = (options: DnsmasqOptions): string => {
  const { url } = parseServerUrl(options.serverUrl);
  const { address: network, netmask } = parseSubnet(options.subnet);
  const lines = [
    'port=0',
    'no-resolv',
    'no-hosts',
    `interface=${parseInterface(options.interface)}`,
    'except-interface=lo',
    'bind-interfaces',
    'enable-tftp',
    `tftp-root=${parsePath(options.tftpRoot)}`,
    ...leases(options),
    // option 175 is iPXE's own; old builds send only the user class
    'dhcp-match=set:ipxe,175',
    'dhcp-userclass=set:ipxe,iPXE',
    ...(options.mode === 'proxy'
      ? [`dhcp-range=${network},proxy,${netmask}`, ...proxyServices(url)]
      : [...addresses(options, netmask), ...bootFiles(url)]),
  ];
  return `${lines.join('\n')}\n`;
};

/** `192.168.1.0/24` as address and netmask. @throws ImagingError CONFIG_INVALID */
export const parseSubnet = (
  text: string,
): { address: string; netmask: string; contains(ip: string): boolean } => {
  const match = /^([0-9.]+)\/([0-9]{1,2})$/.exec(text);
  const bits = Number(match?.[2]);
  if (!match || !isIPv4(match[1] as string) || bits < 8 || bits > 30) {
    throw invalid('subnet', text, 'not an IPv4 network like 192.168.1.0/24');
  }
  const mask = (0xffffffff << (32 - bits)) >>> 0;
  const network = (toNumber(match[1] as string) & mask) >>> 0;
  return {
    address: toAddress(network),
    netmask: toAddress(mask),
    contains: (ip) => isIPv4(ip) && (toNumber(ip) & mask) >>> 0 === network,
  };
};

// Beside another DHCP server dnsmasq answers only PXE clients, and `dhcp-boot` gives no server address
// there (2.90): iPXE then asks port 4011 until it gives up. `pxe-service` works for all of them; OVMF gets
// its file in the answer from port 4011.
const proxyServices = (url: string): string[] => [
  ...[...ARCHITECTURES.bios, ...ARCHITECTURES.efi].map(
    (number) => `pxe-service=tag:ipxe,${number},"fog",${url}/boot/ipxe`,
  ),
  ...ARCHITECTURES.bios.map((number) => `pxe-service=tag:!ipxe,${number},"fog",undionly.kpxe`),
  ...ARCHITECTURES.efi.map((number) => `pxe-service=tag:!ipxe,${number},"fog",shimx64.efi`),
];

const bootFiles = (url: string): string[] => [
  ...Object.entries(ARCHITECTURES).flatMap(([tag, numbers]) =>
    numbers.map((number) => `dhcp-match=set:${tag},option:client-arch,${number}`),
  ),
  `dhcp-boot=tag:ipxe,${url}/boot/ipxe`,
  'dhcp-boot=tag:!ipxe,tag:bios,undionly.kpxe',
  'dhcp-boot=tag:!ipxe,tag:efi,shimx64.efi',
  `dhcp-boot=tag:!ipxe,tag:http,${url}/boot/files/shimx64.efi`,
  // UEFI takes an address for HTTP boot only from a server that says so
  'dhcp-option-force=tag:http,60,HTTPClient',
  // iPXE option 176 "no-pxedhcp": do not wait for a second DHCP server
  'dhcp-option=tag:ipxe,encap:175,176,1b',
];

const addresses = ({ subnet, range, router, dns }: DnsmasqOptions, netmask: string): string[] => {
  if (!range) throw new ImagingError('CONFIG_INVALID', 'Cannot give addresses: no range is set');
  const { contains } = parseSubnet(subnet);
  for (const ip of [range.first, range.last, ...(router ? [router] : [])]) {
    if (!contains(ip)) throw invalid('address', ip, `not in ${subnet}`);
  }
  if (toNumber(range.first) > toNumber(range.last)) {
    throw invalid('range', `${range.first} to ${range.last}`, 'its end is before its beginning');
  }
  if (dns && !isIPv4(dns)) throw invalid('DNS server', dns, 'not an IPv4 address');
  return [
    'dhcp-authoritative',
    `dhcp-range=${range.first},${range.last},${netmask},1h`,
    // an empty option keeps dnsmasq from naming itself as the router
    router ? `dhcp-option=option:router,${router}` : 'dhcp-option=option:router',
    ...(dns ? [`dhcp-option=option:dns-server,${dns}`] : []),
  ];
};

const leases = ({ mode, leaseFile }: DnsmasqOptions): string[] =>
  mode === 'proxy' || !leaseFile ? ['leasefile-ro'] : [`dhcp-leasefile=${parsePath(leaseFile)}`];

const parseInterface = (text: string): string => {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$/.test(text))
    throw invalid('interface', text, 'not an interface name');
  return text;
};

// dnsmasq reads "tftp-root=PATH,INTERFACE", quotes, and the rest of a line after " #"
const parsePath = (text: string): string => {
  if (!/^(\/[A-Za-z0-9._+@-]+)+$/.test(text) || text.length > 400) {
    throw invalid('path', text, 'must be absolute, of letters, digits and . _ + @ -');
  }
  return text;
};

const toNumber = (ip: string): number =>
  ip.split('.').reduce((number, part) => number * 256 + Number(part), 0);
const toAddress = (number: number): string =>
  [24, 16, 8, 0].map((shift) => (number >>> shift) & 255).join('.');

const invalid = (what: string, text: string, reason: string): ImagingError =>
  new ImagingError('CONFIG_INVALID', `Cannot use ${what} ${JSON.stringify(text.slice(0, 60))}: ${reason}`);
