import { readdir, readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno } from '../../agent/errors.ts';
import { run } from '../../agent/process/run.ts';

/** Debian 13: kernel 6.12, partclone 0.3.36; its grubnetx64 has http, Debian 12's has not */
export const SUITE = 'trixie';
/** every time stamp that a build could leave behind, seconds */
export const EPOCH = 1735689600;

export interface RootOptions {
  packages: readonly string[];
  /** `essential` installs a small system; `extract` only unpacks the packages and what they depend on */
  variant: 'essential' | 'extract';
  signal?: AbortSignal;
}

/**
 * A Debian root in `folder` (which must be empty). The mirror is mmdebstrap's default for the suite with its
 * security updates, or $DEBIAN_MIRROR.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const debianRoot = async (folder: string, options: RootOptions): Promise<void> => {
  const mirror = process.env['DEBIAN_MIRROR'];
  await run(
    'mmdebstrap',
    [
      '--quiet',
      `--variant=${options.variant}`,
      '--mode=root',
      '--components=main,non-free-firmware',
      '--aptopt=APT::Install-Recommends "false"',
      `--include=${options.packages.join(',')}`,
      SUITE,
      folder,
      ...(mirror ? [mirror] : []),
    ],
    {
      timeoutMs: 20 * 60_000,
      env: { SOURCE_DATE_EPOCH: String(EPOCH) },
      ...(options.signal ? { signal: options.signal } : {}),
    },
  );
  // base-files is not among packages that are only unpacked, and their programs' loader is /lib64/…
  for (const name of ['bin', 'lib', 'lib64', 'sbin']) {
    await symlink(`usr/${name}`, join(folder, name)).catch((error: unknown) => {
      if (!isErrno(error, 'EEXIST')) throw error;
    });
  }
};

/** Name and version of every package whose files are in an mmdebstrap root. */
export const packageVersions = async (folder: string): Promise<Record<string, string>> => {
  const status = await readFile(join(folder, 'var/lib/dpkg/status'), 'utf8');
  const versions: Record<string, string> = {};
  for (const entry of status.split('\n\n')) {
    const name = /^Package: (.+)$/m.exec(entry)?.[1];
    const version = /^Version: (.+)$/m.exec(entry)?.[1];
    if (name && version) versions[name] = version;
  }
  return versions;
};

/** The one kernel version in a root that linux-image was unpacked into. */
export const kernelVersion = async (folder: string): Promise<string> => {
  const versions = await readdir(join(folder, 'usr/lib/modules'));
  if (versions.length !== 1 || !versions[0]) {
    throw new Error(`Cannot choose a kernel: ${versions.length} are unpacked (${versions.join(', ')})`);
  }
  return versions[0];
};
