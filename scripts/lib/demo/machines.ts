import { join } from 'node:path';
import { type Facts, startSystem } from '../system/start.ts';
import { bootNetwork } from '../vm/boot-folder.ts';
import { type MachineOptions, startMachine } from '../vm/machine.ts';
import type { ScenarioOptions } from './scenario.ts';

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
const TASK_MS = 900_000;

/** The demo's two machines. Their firmware's variables last as long as the demo, as in real ones. */
export const createMachines = async (options: ScenarioOptions): Promise<Machines> => {
  const { server, firmware, out, work, signal } = options;
  const network = await bootNetwork(server, firmware, join(work, 'tftp'));
  const boots = new Map<string, number>();

  const nextStart = (name: MachineName, disk: string): MachineOptions => {
    const count = (boots.get(name) ?? 0) + 1;
    boots.set(name, count);
    return {
      firmware,
      memory: 1024,
      disks: [{ file: disk, bus: 'virtio', serial: `DEMO-${name.toUpperCase()}` }],
      console: join(out, `${name}-${count}.console`),
      signal,
    };
  };

  return {
    mac: (name) => macs[name],
    startFromDisk: async ({ name, disk, keepsFirmware = false, churn = false }) => {
      // a deployed machine must start by the entry that the agent left in its firmware
      const boot = keepsFirmware && firmware !== 'bios' ? 'firmware' : 'disk';
      return await startSystem({
        ...nextStart(name, disk),
        boot,
        ...(keepsFirmware ? { vars: join(work, `${name}.vars`) } : {}),
        arguments: churn ? ['-smbios', 'type=11,value=fog-check:churn'] : [],
      });
    },
    startFromNetwork: async ({ name, disk, during }) => {
      const machine = await startMachine({
        ...nextStart(name, disk),
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
