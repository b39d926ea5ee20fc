import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../agent/process/run.ts';

const CLUSTER = 4096;

/** An NTFS, and the places in it that BitLocker's own data takes. Bytes. */
export interface NtfsImage {
  file: string;
  metadata: number[];
  header: { offset: number; length: number };
}

/**
 * An NTFS of Windows with what BitLocker keeps in it: files in System Volume Information that hold the places of its
 * metadata and of the volume's first sectors (libbde, "Metadata files"). `fill` writes its files.
 */
export const makeNtfs = async (
  file: string,
  bytes: number,
  fill: (folder: string) => Promise<void>,
): Promise<NtfsImage> => {
  await writeFile(file, '');
  await truncate(file, bytes);
  await run('mkntfs', ['--quiet', '--force', '--label', 'Daten', '--cluster-size', String(CLUSTER), file]);
  const name = (part: string) =>
    `System Volume Information/FVE2.{e40ad34d-dae9-4bc7-95bd-b16218c10f72}${part}`;
  const parts = ['.1', '.2', '.3'];
  const folder = await mkdtemp(join(tmpdir(), 'ntfs-'));
  await run('ntfs-3g', [file, folder]);
  try {
    await fill(folder);
    await mkdir(join(folder, 'System Volume Information'));
    for (const part of parts) await writeFile(join(folder, name(part)), Buffer.alloc(64 * 1024));
    await writeFile(join(folder, name('')), Buffer.alloc(8192));
  } finally {
    await run('umount', [folder]);
    await rm(folder, { recursive: true });
  }
  const metadata: number[] = [];
  for (const part of parts) metadata.push(await placeOf(file, name(part)));
  return { file, metadata, header: { offset: await placeOf(file, name('')), length: 8192 } };
};

/** Files as an installed Windows has them, as far as we look, and some of any size. */
export const fillWindows = async (folder: string): Promise<void> => {
  await mkdir(join(folder, 'tree'));
  for (let n = 0; n < 30; n++) await writeFile(join(folder, 'tree', `file-${n}`), randomBytes(1 + n * 7000));
  for (let n = 0; n < 30; n += 3) await rm(join(folder, 'tree', `file-${n}`));
  await run('sh', ['-c', 'cd "$1" && sha256sum tree/* > SHA256SUMS', 'sh', folder]);
};

/** Where a file begins that lies in one piece. */
const placeOf = async (image: string, name: string): Promise<number> => {
  const { stdout } = await run('ntfsinfo', ['--verbose', '--file', name, image]);
  const data = stdout.slice(stdout.indexOf('$DATA'));
  const runs = [...data.matchAll(/^\s+0x[0-9a-f]+\s+(0x[0-9a-f]+)\s+0x[0-9a-f]+\s*$/gm)];
  if (runs.length !== 1) throw new Error(`${name} lies in ${runs.length} pieces`);
  return Number(runs[0]?.[1]) * CLUSTER;
};
