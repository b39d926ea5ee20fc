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

/** Versions of the tools that an image's maps and checks came from; a manifest that says nothing helps nobody. */
export const toolVersions = async (signal: AbortSignal): Promise<Record<string, string>> => {
  const found: Record<string, string> = { node: process.versions.node };
  for (const [name, [tool, ...args]] of Object.entries(versionCommands)) {
    const { stdout, stderr } = await run(tool, args, { signal, okExitCodes: [0, 1, 2, 16] });
    found[name] = /\d+\.\d+[\w.+-]*/.exec(stdout + stderr)?.[0] ?? 'unknown';
  }
  return found;
};
