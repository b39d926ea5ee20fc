import test, { type ExecutionContext } from 'ava';
import type { ErrorCode } from '../../../agent/errors.ts';
import { agentConfig, askConfig, diskConfig } from '../../../server-stub/netboot/grub-config.ts';
import { agentScript, askScript, diskScript } from '../../../server-stub/netboot/ipxe-script.ts';
import { kernelArguments } from '../../../server-stub/netboot/kernel-arguments.ts';

const nonce = '0123456789abcdef0123456789abcdef';
const boot = { serverUrl: 'http://192.168.1.5:8080', nonce, mac: '52-54-00-AA-BB-01' };

const refuses = (t: ExecutionContext, build: () => unknown, code: ErrorCode): void => {
  t.throws(build, { name: 'ImagingError', code });
};

test('iPXE without a task leaves with success for BIOS and with failure for UEFI, and loads nothing', (t) => {
  t.is(
    diskScript(),
    [
      '#!ipxe',
      'echo fog: nothing to do, starting from disk',
      `iseq \${platform} efi && exit 1 ||`,
      'exit 0',
      '',
    ].join('\n'),
  );
});

test('iPXE with a task loads kernel, initramfs and the per-boot archive, and says which card booted', (t) => {
  const script = agentScript(boot);
  t.regex(script, /^#!ipxe\n/);
  t.regex(script, /^kernel http:\/\/192\.168\.1\.5:8080\/boot\/vmlinuz .*\bBOOTIF=01-52-54-00-aa-bb-01\b/m);
  t.regex(script, /^initrd --name initrd\.img http:\/\/192\.168\.1\.5:8080\/boot\/initrd\.img /m);
  t.regex(
    script,
    new RegExp(`^initrd --name site\\.cpio http://192\\.168\\.1\\.5:8080/boot/site/${nonce}\\.cpio `, 'm'),
  );
  t.true(script.endsWith('exit 0\n'), 'a failure ends at the disk');
});

test('the first iPXE script asks three times and then goes to the disk', (t) => {
  const script = askScript('http://10.0.0.1');
  t.regex(
    script,
    /chain --timeout 5000 --replace http:\/\/10\.0\.0\.1\/boot\/ipxe\?mac=\$\{mac\}&uuid=\$\{uuid\}/,
  );
  t.regex(script, /iseq \$\{tries\} 3 \|\| goto ask/);
  t.true(script.endsWith('exit 0\n'));
});

test('GRUB without a task tries the known loader, then Windows, the fallback and any vendor’s, and never exits', (t) => {
  const config = diskConfig('\\EFI\\debian\\shimx64.efi');
  t.regex(
    config,
    /^for loader in \/EFI\/debian\/shimx64\.efi \/EFI\/Microsoft\/Boot\/bootmgfw\.efi \/EFI\/BOOT\/BOOTX64\.EFI; do$/m,
  );
  t.regex(config, /done\nfor file in \(hd\*,\*\)\/EFI\/\*\/shimx64\.efi \(hd/);
  t.regex(config, /sleep 30\nreboot\n$/);
  for (const text of [config, diskConfig(), askConfig('http://10.0.0.1'), agentConfig(boot)]) {
    t.notRegex(text, /\bexit\b/);
    t.notRegex(text, /&&|\|\|/, 'GRUB has neither');
  }
});

test('GRUB with a task loads kernel and both archives by http with the port', (t) => {
  const config = agentConfig(boot);
  t.regex(config, /linux \(http,192\.168\.1\.5:8080\)\/boot\/vmlinuz .*\bBOOTIF=01-52-54-00-aa-bb-01\b/);
  t.true(
    config.includes(
      `initrd (http,192.168.1.5:8080)/boot/initrd.img (http,192.168.1.5:8080)/boot/site/${nonce}.cpio;`,
    ),
  );
  t.regex(config, /for loader in/, 'a failure ends at the disk');
});

test('the port stands in the address only where it is not 80', (t) => {
  t.regex(
    agentConfig({ ...boot, serverUrl: 'http://fog.school.example:80/' }),
    /\(http,fog\.school\.example\)\/boot/,
  );
});

test('no secret and no site data stand on the kernel command line', (t) => {
  t.deepEqual(kernelArguments('52:54:00:aa:bb:01', ['fog.stay']), [
    'console=tty0',
    'console=ttyS0,115200',
    'nomodeset',
    'loglevel=4',
    'BOOTIF=01-52-54-00-aa-bb-01',
    'fog.stay',
  ]);
});

const badUrls = [
  'http://10.0.0.1/\nreboot',
  'http://10.0.0.1:8080 || shell',
  `http://\${net0/ip}`,
  'http://$host',
  'http://a;b',
  'http://10.0.0.1:99999',
  'http://user@10.0.0.1',
  'http://10.0.0.1/path',
  'https://10.0.0.1',
  'http://-a',
  'http://a)b',
  '',
];
for (const serverUrl of badUrls) {
  test(`a server address ${JSON.stringify(serverUrl)} is refused by every script`, (t) => {
    refuses(t, () => askScript(serverUrl), 'CONFIG_INVALID');
    refuses(t, () => askConfig(serverUrl), 'CONFIG_INVALID');
    refuses(t, () => agentScript({ ...boot, serverUrl }), 'CONFIG_INVALID');
    refuses(t, () => agentConfig({ ...boot, serverUrl }), 'CONFIG_INVALID');
  });
}

for (const mac of [
  '52:54:00:aa:bb:01\nshell',
  `\${mac}`,
  '52:54:00:aa:bb',
  '52:54:00:aa:bb:0g',
  "52:54:00:aa:bb:01'",
]) {
  test(`a MAC address ${JSON.stringify(mac)} is refused`, (t) => {
    refuses(t, () => agentScript({ ...boot, mac }), 'BAD_REQUEST');
    refuses(t, () => agentConfig({ ...boot, mac }), 'BAD_REQUEST');
  });
}

for (const bad of ['../../admin-token', 'x', `${nonce} --foo`, `${nonce}\n`, nonce.toUpperCase()]) {
  test(`a boot handle ${JSON.stringify(bad)} is refused`, (t) => {
    refuses(t, () => agentScript({ ...boot, nonce: bad }), 'BAD_REQUEST');
    refuses(t, () => agentConfig({ ...boot, nonce: bad }), 'BAD_REQUEST');
  });
}

const badLoaders = [
  '\\EFI\\..\\secret.efi',
  '/EFI/a b.efi',
  '/EFI/x.efi; reboot',
  '/EFI/$root/x.efi',
  '/EFI/"x".efi',
  '/EFI/x.txt',
  '//x.efi',
  '/EFI/x.efi\nhalt',
  `/${'a'.repeat(300)}.efi`,
];
for (const loader of badLoaders) {
  test(`a loader path ${JSON.stringify(loader.slice(0, 30))} is refused`, (t) => {
    refuses(t, () => diskConfig(loader), 'CONFIG_INVALID');
  });
}

for (const word of ['a b', 'init=/bin/sh\n', 'x=$y', 'x="y"', "x='y'", 'a;b', 'a||b', '']) {
  test(`a kernel argument ${JSON.stringify(word)} is refused`, (t) => {
    refuses(t, () => agentScript({ ...boot, kernelArguments: [word] }), 'CONFIG_INVALID');
    refuses(t, () => agentConfig({ ...boot, kernelArguments: [word] }), 'CONFIG_INVALID');
  });
}
