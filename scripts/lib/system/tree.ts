import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../../agent/process/run.ts';
import { layer } from '../../../initramfs/build/cache.ts';
import { root } from '../root.ts';

const SUITE = 'trixie';
/** what boots by BIOS, shuts down when its power button is pressed, and has its initramfs made on its own */
const common = [
  'linux-image-cloud-amd64',
  'systemd-sysv',
  'dbus',
  'udev',
  'initramfs-tools',
  'grub-pc-bin',
  'grub-common',
];
const excluded = ['/usr/share/doc/*', '/usr/share/locale/*', '/usr/share/man/*'];

export interface TreeOptions {
  /** a new folder */
  folder: string;
  /** Debian packages beside the common ones */
  packages: readonly string[];
  say: (line: string) => void;
}

/** Debian 13 with a kernel, as mmdebstrap installs it: minutes for a new list of packages, then seconds. Needs root. */
export const unpackTree = async ({ folder, packages, say }: TreeOptions): Promise<void> => {
  const args = [
    '--variant=minbase',
    '--quiet',
    `--include=${[...common, ...packages].join(',')}`,
    ...excluded.map((path) => `--dpkgopt=path-exclude=${path}`),
    SUITE,
  ];
  const cache = { root: join(root, 'out/cache'), log: say };
  const made = await layer(cache, 'system-tree', args, async (making) => {
    await run('mmdebstrap', [...args, join(making, 'tree.tar')], { timeoutMs: 900_000 });
  });
  await mkdir(folder);
  const attributes = ['--numeric-owner', '--xattrs', '--xattrs-include=*'];
  await run('tar', ['-x', ...attributes, '-f', join(made.folder, 'tree.tar'), '-C', folder], {
    timeoutMs: 300_000,
  });
};
