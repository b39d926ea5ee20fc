import { ImagingError } from '../../../agent/errors.ts';
import { type MachineOptions, startMachine } from '../vm/machine.ts';

/** What a system says about itself at each start (check.sh). */
export interface Facts {
  /** `ok`: every file has the sum that it was installed with */
  hashes: string;
  files: number;
  /** what the root filesystem lies on, down to the disk: `part/disk`, `lvm/crypt/part/disk` */
  stack: string;
  /** bytes of the root filesystem */
  root: number;
  /** KiB */
  swap: number;
  firmware: string;
  change: string;
  /** bytes that it wrote and deleted again, because it was told to */
  churned: number;
}

export interface StartOptions extends MachineOptions {
  /** typed when the system asks for one; without it a system that asks is not waited for */
  passphrase?: string;
}

const START_MS = 600_000;

/**
 * Start a system from its own disk until the login prompt, read its facts, shut it down in order.
 *
 * @throws ImagingError TOOL_TIMEOUT, TOOL_FAILED (it ended before), each with the console's last words
 */
export const startSystem = async ({ passphrase, ...options }: StartOptions): Promise<Facts> => {
  const machine = await startMachine({ boot: 'disk', nics: [], ...options });
  try {
    if (passphrase !== undefined) {
      // Debian's cryptsetup-initramfs 2.7
      await machine.waitForConsole(/Please unlock disk .*: /, { timeoutMs: START_MS });
      await machine.type(`${passphrase}\n`);
    }
    const said = await machine.waitForConsole(/FOG-CHECK (.*) end/, { timeoutMs: START_MS });
    await machine.waitForConsole(/login:/, { timeoutMs: START_MS });
    await machine.qmp('system_powerdown');
    await machine.waitForExit({ timeoutMs: START_MS });
    return parseFacts(said[1] ?? '');
  } finally {
    await machine.kill();
  }
};

const parseFacts = (text: string): Facts => {
  const fields = Object.fromEntries(text.split(' ').map((word) => word.split('=')));
  const field = (name: keyof Facts): string => {
    const value: unknown = fields[name];
    if (typeof value === 'string') return value;
    throw new ImagingError('INTERNAL', `Cannot read what the system said: no ${name} in "${text}"`);
  };
  return {
    hashes: field('hashes'),
    files: Number(field('files')),
    stack: field('stack'),
    root: Number(field('root')),
    swap: Number(field('swap')),
    firmware: field('firmware'),
    change: field('change'),
    churned: Number(field('churned')),
  };
};
