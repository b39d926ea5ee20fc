import { join } from 'node:path';
import { ImagingError } from '../../../agent/errors.ts';
import { bootNetwork } from '../vm/boot-folder.ts';
import { type Machine, type MachineOptions, startMachine } from '../vm/machine.ts';
import type { ScenarioOptions } from './scenario.ts';

/** What the demo's system says about itself at each start (scripts/lib/demo/check.sh). */
export interface Facts {
  hashes: string;
  files: number;
  /** bytes of the root filesystem */
  root: number;
  /** KiB */
  swap: number;
  firmware: string;
  change: string;
  /** bytes that it wrote and deleted again, because it was told to */
  churned: number;
}

export interface Machines {
  mac(name: MachineName): string;
  /**
   * Start from the own disk until the login prompt, read its facts, shut it down in order. `churn`: the system
   * writes and deletes 500 MB meanwhile.
   */
  startFromDisk(options: {
    name: MachineName;
    disk: string;
    keepsFirmware?: boolean;
    churn?: boolean;
  }): Promise<Facts>;
  /** Start from the network until the machine restarts or powers off by itself. */
  startFromNetwork(options: { name: MachineName; disk: string; during: () => Promise<void> }): Promise<void>;
}

export type MachineName = 'source' | 'target';

const macs = { source: '52:54:00:de:00:01', target: '52:54:00:de:00:02' } as const;
const START_MS = 600_000;
const TASK_MS = 900_000;

/** The demo's two machines. Their firmware's variables last as long as the demo, as in real ones. */
export const createMachines = async (options: ScenarioOptions): Promise<Machines> => {
  const { server, firmware, out, work, signal } = options;
  const network = await bootNetwork(server, firmware, join(work, 'tftp'));
  const boots = new Map<string, number>();

  const start = (name: MachineName, disk: string, more: MachineOptions): Promise<Machine> => {
    const count = (boots.get(name) ?? 0) + 1;
    boots.set(name, count);
    return startMachine({
      firmware,
      memory: 1024,
      disks: [{ file: disk, bus: 'virtio', serial: `DEMO-${name.toUpperCase()}` }],
      console: join(out, `${name}-${count}.console`),
      signal,
      ...more,
    });
  };

  return {
    mac: (name) => macs[name],
    startFromDisk: async ({ name, disk, keepsFirmware = false, churn = false }) => {
      // a deployed machine must start by the entry that the agent left in its firmware
      const boot = keepsFirmware && firmware !== 'bios' ? 'firmware' : 'disk';
      const machine = await start(name, disk, {
        boot,
        ...(keepsFirmware ? { vars: join(work, `${name}.vars`) } : {}),
        nics: [],
        arguments: churn ? ['-smbios', 'type=11,value=fog-demo:churn'] : [],
      });
      try {
        const said = await machine.waitForConsole(/FOG-DEMO (.*) end/, { timeoutMs: START_MS });
        await machine.waitForConsole(/login:/, { timeoutMs: START_MS });
        await machine.qmp('system_powerdown');
        await machine.waitForExit({ timeoutMs: START_MS });
        return parseFacts(said[1] ?? '');
      } finally {
        await machine.kill();
      }
    },
    startFromNetwork: async ({ name, disk, during }) => {
      const machine = await start(name, disk, {
        boot: 'net',
        vars: join(work, `${name}.vars`),
        nics: [{ mac: macs[name], network }],
      });
      try {
        await Promise.all([machine.waitForExit({ timeoutMs: TASK_MS }), during()]);
      } finally {
        await machine.kill();
      }
    },
  };
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
    root: Number(field('root')),
    swap: Number(field('swap')),
    firmware: field('firmware'),
    change: field('change'),
    churned: Number(field('churned')),
  };
};
