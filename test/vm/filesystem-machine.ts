import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PROJECT } from '../../initramfs/build/lists.ts';
import { buildInitramfs } from '../../initramfs/build.ts';
import type { MachineOptions } from '../../scripts/lib/vm/machine.ts';
import { runGuest } from './run-guest.ts';

const MIB = 1024 * 1024;

export interface FilesystemFact {
  label: string;
  used: number;
  minimum: number;
  files: number;
  same: boolean;
}

/**
 * The drivers with the tools and the kernel of the initramfs: what the guest printed of each filesystem. The
 * host's are looked at in test/integration.
 */
export const runFilesystemGuest = async (): Promise<Map<string, FilesystemFact>> => {
  const out = join(PROJECT, 'out/test/filesystem-guest');
  await buildInitramfs({ out, entries: { main: join(import.meta.dirname, 'filesystem-guest.ts') } });
  const folder = await mkdtemp(join(tmpdir(), 'vm-filesystem-'));
  try {
    const disks = await Promise.all(
      ['source', 'copy'].map(async (name) => {
        await using file = await open(join(folder, name), 'w');
        await file.truncate(480 * MIB);
        return { file: join(folder, name), bus: 'virtio' as const, serial: name };
      }),
    );
    const machine: MachineOptions = {
      firmware: 'bios',
      memory: 1536,
      kernel: {
        image: join(out, 'vmlinuz'),
        initrd: join(out, 'initrd.img'),
        commandLine: 'console=ttyS0',
      },
      nics: [{ mac: '52:54:00:12:34:56' }],
      uuid: '4c4c4544-0043-3510-8052-b4c04f564231',
      disks,
    };
    return (await runGuest(machine, { timeoutMs: 12 * 60_000 })).facts;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
};
