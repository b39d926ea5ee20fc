import test from 'ava';
import { type DnsmasqOptions, dnsmasqConfig, parseSubnet } from '../../../server-stub/netboot/dnsmasq.ts';

const options: DnsmasqOptions = {
  interface: 'eth0',
  serverUrl: 'http://192.168.1.5:8080',
  tftpRoot: '/srv/tftp',
  mode: 'dhcp',
  subnet: '192.168.1.7/24',
  range: { first: '192.168.1.100', last: '192.168.1.200' },
};

test('as the only DHCP server it gives addresses, and each kind of firmware its own loader', (t) => {
  const config = dnsmasqConfig(options);
  t.regex(config, /^dhcp-range=192\.168\.1\.100,192\.168\.1\.200,255\.255\.255\.0,1h$/m);
  t.regex(config, /^dhcp-boot=tag:ipxe,http:\/\/192\.168\.1\.5:8080\/boot\/ipxe$/m);
  t.regex(config, /^dhcp-boot=tag:!ipxe,tag:bios,undionly\.kpxe$/m);
  t.regex(config, /^dhcp-boot=tag:!ipxe,tag:efi,shimx64\.efi$/m);
  t.regex(config, /^dhcp-option=option:router$/m, 'it is not a router itself');
});

test('beside another DHCP server it gives no address', (t) => {
  const config = dnsmasqConfig({ ...options, mode: 'proxy' });
  t.regex(config, /^dhcp-range=192\.168\.1\.0,proxy,255\.255\.255\.0$/m);
  t.notRegex(config, /dhcp-range=192\.168\.1\.100/);
  t.notRegex(config, /dhcp-authoritative|dhcp-boot/);
  t.regex(config, /^pxe-service=tag:!ipxe,7,"fog",shimx64\.efi$/m);
});

test('it serves no names and keeps leases only where it is told', (t) => {
  t.regex(dnsmasqConfig(options), /^port=0$/m);
  t.regex(dnsmasqConfig(options), /^leasefile-ro$/m);
  t.regex(dnsmasqConfig({ ...options, leaseFile: '/srv/leases' }), /^dhcp-leasefile=\/srv\/leases$/m);
});

const refused: [string, Partial<DnsmasqOptions>][] = [
  ['an interface with a second line', { interface: 'eth0\ndhcp-script=/bin/sh' }],
  ['an interface with a comma', { interface: 'eth0,eth1' }],
  ['a TFTP root with an option behind it', { tftpRoot: '/srv/tftp,eth1' }],
  ['a TFTP root with a second line', { tftpRoot: '/srv\nconf-file=/etc/shadow' }],
  ['a relative TFTP root', { tftpRoot: 'tftp' }],
  ['a lease file with a blank', { leaseFile: '/srv/a b' }],
  ['a server address with a second line', { serverUrl: 'http://a\nx' }],
  ['no range', { range: undefined }],
  ['a range outside the network', { range: { first: '192.168.2.1', last: '192.168.2.9' } }],
  ['a range that runs backwards', { range: { first: '192.168.1.9', last: '192.168.1.1' } }],
  ['a router outside the network', { router: '10.0.0.1' }],
  ['a name server that is no address', { dns: 'dns' }],
  ['a network without a length', { subnet: '192.168.1.0' }],
  ['a network that is no address', { subnet: '999.1.1.1/24' }],
];
for (const [what, change] of refused) {
  test(`${what} is refused`, (t) => {
    t.throws(() => dnsmasqConfig({ ...options, ...change }), {
      name: 'ImagingError',
      code: 'CONFIG_INVALID',
    });
  });
}

test('a network is read from any address in it', (t) => {
  const { address, netmask, contains } = parseSubnet('10.20.255.9/20');
  t.is(address, '10.20.240.0');
  t.is(netmask, '255.255.240.0');
  t.true(contains('10.20.241.1'));
  t.false(contains('10.20.239.255'));
  t.false(contains('10.20.241.1\n'));
});
