import { chmod, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ImagingError } from '../../../agent/errors.ts';
import { run } from '../../../agent/process/run.ts';

/** lists of sums (`b2sum`) that the system checks at each start, in the system */
export const SUMS_FOLDER = 'var/lib/fog-check';

export interface SystemOptions {
  tree: string;
  /** text of files in the tree, by path */
  files: Readonly<Record<string, string>>;
  /** make the initramfs anew: the files say what it has to open */
  initramfs?: boolean;
}

/** A system of its own from the bare tree: files, a login on the serial port, and at each start it says what it is. */
export const configureSystem = async ({ tree, files, initramfs = false }: SystemOptions): Promise<void> => {
  const check = await readFile(join(import.meta.dirname, 'check.sh'), 'utf8');
  await put(tree, { 'etc/hostname': 'golden\n', ...files, ...checkService });
  await put(tree, { 'usr/local/sbin/fog-check': check }, 0o755);
  await run('chroot', [tree, 'systemctl', 'enable', 'fog-check.service', 'serial-getty@ttyS0.service']);
  await rm(join(tree, 'etc/machine-id'), { force: true });
  await put(tree, { 'etc/machine-id': 'uninitialized\n' });
  if (initramfs) await run('chroot', [tree, 'update-initramfs', '-u', '-k', 'all'], { timeoutMs: 300_000 });
  await sumFiles(tree);
};

const checkService = {
  'etc/systemd/system/fog-check.service': [
    '[Unit]',
    'Description=Say on the serial console what this system is',
    'After=multi-user.target local-fs.target',
    '[Service]',
    'Type=oneshot',
    'ExecStart=/usr/local/sbin/fog-check',
    '[Install]',
    'WantedBy=graphical.target multi-user.target',
    '',
  ].join('\n'),
};

const put = async (tree: string, files: Readonly<Record<string, string>>, mode = 0o644): Promise<void> => {
  for (const [path, text] of Object.entries(files)) {
    const file = join(tree, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, text);
    await chmod(file, mode);
  }
};

/** What an operating system does not change while it runs. */
const sumFiles = async (tree: string): Promise<void> => {
  await mkdir(join(tree, SUMS_FOLDER), { recursive: true });
  const sum =
    'find usr boot -xdev -type f ! -path "boot/grub/*" -print0 | LC_ALL=C sort -z | xargs -0 b2sum > "$1"';
  await run('chroot', [tree, 'sh', '-c', sum, 'sh', join(SUMS_FOLDER, 'root.b2')], { timeoutMs: 300_000 });
};

/** The release of the tree's kernel, as its files in /boot are named. */
export const kernelOf = async (tree: string): Promise<string> => {
  const found = (await readdir(join(tree, 'boot'))).find((name) => name.startsWith('vmlinuz-'));
  if (found) return found.slice('vmlinuz-'.length);
  throw new ImagingError('INTERNAL', `Cannot make a system: no kernel in ${tree}/boot`);
};
