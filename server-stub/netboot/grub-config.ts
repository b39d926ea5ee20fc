import type { AgentBoot } from './ipxe-script.ts';
import { kernelArguments } from './kernel-arguments.ts';
import { parseLoaderPath, parseNonce, parseServerUrl } from './words.ts';

/*
 * GRUB 2.12 as Debian signs it (grubnetx64.efi): no `&&`, no `read`, `(http,host:port)` works. Its
 * `exit` returns success to the firmware, which under OVMF ends in the setup: never used. What it starts
 * instead is verified by shim, so under Secure Boot only signed loaders run.
 */
const WINDOWS = '/EFI/Microsoft/Boot/bootmgfw.efi';
const FALLBACK = '/EFI/BOOT/BOOTX64.EFI';
// Debian installs neither: a machine that nobody has made an inventory of must start all the same
const ANY_LOADER = ['shimx64.efi', 'grubx64.efi', 'systemd-bootx64.efi'].map(
  (name) => `(hd*,*)/EFI/*/${name}`,
);

/** Nothing to do: on to the machine's own disk, by the loader that inventory knows if there is one. */
export const diskConfig = (efiLoader?: string): string =>
  config('echo "fog: nothing to do, starting from disk"', ...startDisk(efiLoader));

/**
 * The static `grub/grub.cfg` of the TFTP folder, the same for all machines: it asks the server for this
 * machine's own, and starts the disk if there is none. GRUB gives up on a server that does not answer,
 * or refuses, after about 30 s.
 */
export const askConfig = (serverUrl: string): string => {
  const { url, authority } = parseServerUrl(serverUrl);
  return config(
    `echo "fog: asking ${url}"`,
    `source "(http,${authority})/boot/grub/\${net_default_mac}.cfg"`,
    `echo "fog: ${url} gives no answer, starting from disk"`,
    ...startDisk(),
  );
};

/** A task: kernel, initramfs and the per-boot archive; if one of them fails, the disk. */
export const agentConfig = (boot: AgentBoot): string => {
  const from = `(http,${parseServerUrl(boot.serverUrl).authority})/boot`;
  const words = kernelArguments(boot.mac, boot.kernelArguments).join(' ');
  return config(
    'echo "fog: starting the agent"',
    `if linux ${from}/vmlinuz ${words}; then`,
    `  if initrd ${from}/initrd.img ${from}/site/${parseNonce(boot.nonce)}.cpio; then`,
    '    boot',
    '  fi',
    'fi',
    'echo "fog: the agent could not be loaded, starting from disk in 10 s"',
    'sleep 10',
    ...startDisk(),
  );
};

const startDisk = (efiLoader?: string): string[] => {
  const known = efiLoader === undefined ? [] : [parseLoaderPath(efiLoader)];
  const paths = [...new Set([...known, WINDOWS, FALLBACK])];
  return [
    `for loader in ${paths.join(' ')}; do`,
    '  unset esp',
    '  if search --no-floppy --file --set=esp $loader; then',
    '    echo "fog: starting ($esp)$loader"',
    '    set root=$esp',
    '    if chainloader ($esp)$loader; then',
    '      boot',
    '    fi',
    '  fi',
    'done',
    // a pattern without a match stays a pattern, which is no file
    `for file in ${ANY_LOADER.join(' ')}; do`,
    '  if [ -f "$file" ]; then',
    '    echo "fog: starting $file"',
    '    regexp --set=1:root "^\\(([^)]+)\\)" "$file"',
    '    if chainloader "$file"; then',
    '      boot',
    '    fi',
    '  fi',
    'done',
    'echo "fog: no boot loader on any disk; restarting in 30 s"',
    'sleep 30',
    'reboot',
  ];
};

const config = (...lines: string[]): string => `${lines.join('\n')}\n`;
