import { parseKernelArgument, parseMac } from './words.ts';

/**
 * The agent's kernel command line. Screen and serial port are both consoles; without a serial port the
 * kernel drops the second. `nomodeset`: text only, so that no graphics driver can hang the boot. No
 * secret: whoever is on the machine can read this.
 */
export const kernelArguments = (mac: string | undefined, more: readonly string[] = []): string[] =>
  [
    'console=tty0',
    'console=ttyS0,115200',
    'nomodeset',
    'loglevel=4',
    // the card that booted, as PXELINUX spells it: 01 is Ethernet
    ...(mac === undefined ? [] : [`BOOTIF=01-${parseMac(mac).replaceAll(':', '-')}`]),
    ...more,
  ].map(parseKernelArgument);
