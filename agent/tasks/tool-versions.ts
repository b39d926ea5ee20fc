import { hasCode } from '../errors.ts';
import { run } from '../process/run.ts';

const versionCommands = {
  partclone: ['partclone.extfs', '-v'],
  e2fsprogs: ['e2fsck', '-V'],
  'ntfs-3g': ['ntfsresize', '--version'],
  'util-linux': ['sfdisk', '--version'],
  dosfstools: ['fsck.fat', '--help'],
  xfsprogs: ['xfs_repair', '-V'],
  'btrfs-progs': ['btrfs', '--version'],
  'f2fs-tools': ['fsck.f2fs', '-V'],
  exfatprogs: ['fsck.exfat', '-V'],
} as const;

const eraseCommands = {
  'nvme-cli': ['nvme', 'version'],
  hdparm: ['hdparm', '-V'],
  'sg3-utils': ['sg_sanitize', '--version'],
  smartmontools: ['smartctl', '--version'],
} as const;

/** Versions of the tools that an image's maps and checks came from; a manifest that says nothing helps nobody. */
export const toolVersions = (signal: AbortSignal): Promise<Record<string, string>> =>
  versionsOf(versionCommands, signal);

/** Versions of the tools that have drives erase themselves; for a certificate, which also says what was missing. */
export const eraseToolVersions = (signal: AbortSignal): Promise<Record<string, string>> =>
  versionsOf(eraseCommands, signal, 'not installed');

/** `missing`: what stands for a tool that is not there; without it that is an error. */
const versionsOf = async (
  commands: Record<string, readonly [tool: string, ...args: string[]]>,
  signal: AbortSignal,
  missing?: string,
): Promise<Record<string, string>> => {
  const found: Record<string, string> = { node: process.versions.node };
  for (const [name, [tool, ...args]] of Object.entries(commands)) {
    try {
      const { stdout, stderr } = await run(tool, args, { signal, okExitCodes: [0, 1, 2, 16] });
      found[name] = /\d+\.\d+[\w.+-]*/.exec(stdout + stderr)?.[0] ?? 'unknown';
    } catch (error) {
      if (missing === undefined || !hasCode(error, 'TOOL_MISSING')) throw error;
      found[name] = missing;
    }
  }
  return found;
};
