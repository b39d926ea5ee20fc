import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../agent/process/run.ts';
import { onRange } from '../../scripts/lib/system/gpt-disk.ts';
import { fillWindows, makeNtfs } from '../integration/bitlocker-ntfs.ts';
import { encryptVolume, RECOVERY_PASSWORD } from '../integration/bitlocker-volume.ts';
import { lvm, placesOf } from '../integration/lvm.ts';

const MIB = 1024 * 1024;
export const ROOT_FILES = 40;

/** A tree with its own list of sums, which `sha256sum -c SHA256SUMS` checks anywhere. */
export const writeTree = async (folder: string, files = ROOT_FILES): Promise<void> => {
  await mkdir(join(folder, 'tree'));
  for (let n = 0; n < files; n++)
    await writeFile(join(folder, 'tree', `file-${n}`), randomBytes(1 + n * 7000));
  for (let n = 0; n < files; n += 4) await rm(join(folder, 'tree', `file-${n}`));
  await run('sh', ['-c', 'cd "$1" && sha256sum tree/* > SHA256SUMS', 'sh', folder]);
};

const mounted = async (
  device: string,
  work: (folder: string) => Promise<void>,
  before?: () => Promise<void>,
) => {
  const folder = await mkdtemp(join(tmpdir(), 'make-'));
  await run('mount', ['-o', 'loop', device, folder]);
  try {
    await work(folder);
    await before?.();
  } finally {
    await run('umount', [folder]);
    await rm(folder, { recursive: true });
  }
};

/** A filesystem as a power cut leaves it: what lies on its device while it is mounted and has work in its journal. */
export const makeDirty = async (file: string, size: number, make: string[]): Promise<void> => {
  const alive = `${file}.alive`;
  await writeFile(alive, '');
  await truncate(alive, size);
  const [tool = '', ...args] = make;
  await run(tool, [...args, alive]);
  await mounted(alive, async (folder) => {
    await writeTree(folder);
    await run('sync', ['--file-system', folder]);
    for (let n = 0; n < 20; n++) await mkdir(join(folder, `late-${n}`));
    await writeFile(join(folder, 'late'), 'after the last sync');
    // log, not checkpoint: what is on the device now has to be replayed
    await run('sync', [join(folder, 'late')]);
    await copyFile(alive, file);
  });
  await rm(alive);
};

/** `vg` with root (ext4), var (XFS), swap and wide (ext4 in two pieces with another between). */
export const makeGroup = async (device: string): Promise<void> => {
  const create = async (name: string, size: string) =>
    await lvm([device], 'lvcreate', ['-q', '-an', '-Zn', '-Wn', '-n', name, '-L', size, 'vg']);
  await lvm([device], 'pvcreate', ['-q', device]);
  await lvm([device], 'vgcreate', ['-q', 'vg', device]);
  await create('root', '64M');
  await create('wide', '32M');
  await create('swap', '16M');
  await create('var', '320M');
  await lvm([device], 'lvextend', ['-q', '-L', '64M', 'vg/wide']);
  await run('blockdev', ['--flushbufs', device]);
  const places = await placesOf([device]);
  const makes: Record<string, string[]> = {
    root: ['mkfs.ext4', '-q', '-L', 'root'],
    swap: ['mkswap', '--uuid', '0b8bd0c5-1a2f-4f5e-9c55-8b6d2c1e0f11'],
    var: ['mkfs.xfs', '-q'],
  };
  for (const [name, [tool = '', ...args]] of Object.entries(makes)) {
    const [place] = places.get(name) ?? [];
    if (!place) throw new Error(`no ${name}`);
    await onRange(place.device, { start: place.offset, size: place.length }, async (node) => {
      await run(tool, [...args, node]);
      if (name !== 'swap')
        await mounted(node, async (folder) => {
          await mkdir(join(folder, 'etc'));
          if (name === 'root')
            await writeFile(join(folder, 'etc/os-release'), 'NAME="Debian"\nVERSION_ID="13"\n');
          await writeTree(folder);
        });
    });
  }
  await fillWide(places.get('wide') ?? []);
};

/** This kernel may have no device-mapper: the volume is made in a file and its pieces are put in their places. */
const fillWide = async (
  pieces: readonly { device: string; offset: number; length: number }[],
): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), 'wide-'));
  const file = join(folder, 'wide');
  try {
    await writeFile(file, '');
    await truncate(file, 64 * MIB);
    await run('mkfs.ext4', ['-q', '-L', 'wide', file]);
    await mounted(file, writeTree);
    let from = 0;
    for (const { device, offset, length } of pieces) {
      await run('dd', [
        ...[`if=${file}`, `of=${device}`, 'bs=1M', 'conv=notrunc', 'status=none'],
        ...[`skip=${from / MIB}`, `seek=${offset / MIB}`, `count=${length / MIB}`],
      ]);
      from += length;
    }
    if (pieces.length !== 2) throw new Error(`wide lies in ${pieces.length} pieces`);
  } finally {
    await rm(folder, { recursive: true });
  }
};

const partitions = [
  { name: 'lvm', mib: 520 },
  { name: 'ext4', mib: 64, make: ['mkfs.ext4', '-q', '-F'] },
  { name: 'xfs', mib: 320, make: ['mkfs.xfs', '-q'] },
  { name: 'btrfs', mib: 128, make: ['mkfs.btrfs', '-q'] },
] as const;

/** GPT: p1 a volume group, p2 to p4 filesystems whose machine lost its power. */
export const makeSource = async (file: string): Promise<void> => {
  await writeFile(file, '');
  const total = partitions.reduce((sum, { mib }) => sum + mib, 0);
  await truncate(file, (total + 2) * MIB);
  const lines = partitions.map(({ mib }, at) => {
    const start = 1 + partitions.slice(0, at).reduce((sum, before) => sum + before.mib, 0);
    return { start, line: `start=${start * 2048}, size=${mib * 2048}, type=L` };
  });
  await run('sfdisk', ['--quiet', file], {
    input: `label: gpt\n${lines.map(({ line }) => line).join('\n')}\n`,
  });
  for (const [at, partition] of partitions.entries()) {
    const start = (lines[at]?.start ?? 0) * MIB;
    if (!('make' in partition)) {
      await onRange(file, { start, size: partition.mib * MIB }, makeGroup);
      continue;
    }
    const part = `${file}.part`;
    await makeDirty(part, partition.mib * MIB, [...partition.make]);
    await run('dd', [
      `if=${part}`,
      `of=${file}`,
      'bs=1M',
      `seek=${start / MIB}`,
      'conv=notrunc,sparse',
      'status=none',
    ]);
    await rm(part);
  }
};

/** One NTFS as it is, and as BitLocker volumes: suspended with each kind of cipher (`BLS…`), and locked (`BLL4`). */
export const makeBitLocker = async (folder: string): Promise<Record<string, string>> => {
  const ntfs = await makeNtfs(join(folder, 'NTFS'), 24 * MIB, fillWindows);
  const recoveryPassword = RECOVERY_PASSWORD;
  const recipes = {
    BLS0: { encryption: 0x8000, recoveryPassword, clearKey: true },
    BLS2: { encryption: 0x8002, tpm: true, clearKey: true },
    BLS4: { encryption: 0x8004, tpm: true, recoveryPassword, clearKey: true },
    BLL4: { encryption: 0x8004, tpm: true, recoveryPassword },
  } as const;
  const files: Record<string, string> = { NTFS: ntfs.file };
  for (const [name, recipe] of Object.entries(recipes)) {
    files[name] = join(folder, name);
    await writeFile(files[name], (await encryptVolume(ntfs, recipe)).volume);
  }
  return files;
};
