import type { DiskClaim } from '../disk/claim.ts';
import { assertClaim } from '../disk/claim.ts';
import { listDisks } from '../disk/disk.ts';
import { mountReadOnly } from '../disk/mount.ts';
import { readTable } from '../disk/table.ts';
import { hasCode, ImagingError, isImagingError } from '../errors.ts';
import { run } from '../process/run.ts';
import type { Evidence } from '../protocol/index.ts';
import { type EfiArch, fallbackLoader, findLoaders, firmwareArch, type Loaders } from './efi-loader.ts';
import { type BootMenu, orderWith, readBootMenu, replacedEntries } from './efi-variables.ts';

export interface SetBootEntryOptions {
  claim: DiskClaim;
  /** number of the ESP on that disk; its table is written already */
  partition: number;
  /** device node of the ESP, to look for the loader */
  device: string;
  /** name in the firmware's menu; Windows' loader always has its own */
  label: string;
  /** `\EFI\…`; default: the best known loader found on the ESP */
  loader?: string;
  signal?: AbortSignal;
}

export interface BootEntryResult {
  evidence: Evidence[];
  warnings: string[];
  /** loader path with backslashes */
  loader: string;
  /** four hex digits; null where the firmware's own fallback path is relied on */
  entry: string | null;
}

/**
 * Make the firmware boot the disk that was just written: one entry for its EFI system partition,
 * stale ones gone, network boot first if it was first, BootNext on the new entry; all read back.
 * Where NVRAM cannot be written the fallback loader is good enough, with a warning.
 *
 * @throws ImagingError BOOT_ENTRY_FAILED: no loader, or neither entry nor fallback loader
 */
export const setBootEntry = async (options: SetBootEntryOptions): Promise<BootEntryResult> => {
  const { claim, partition, device, label, signal } = options;
  assertClaim(claim);
  const wait = signal ? { signal } : {};
  const guid = await partitionGuid(claim.path, partition, wait);
  const arch = await firmwareArch();
  const fallback = fallbackLoader(arch);
  const loaders = await loadersOn(device, arch, wait);
  const loader = options.loader ?? loaders.found[0];
  if (!loader) throw failed(`no boot loader on ${device}`, { device });

  const warnings: string[] = [];
  if (!loaders.fallback) warnings.push(`${device} has no ${fallback}: without its entry it will not start`);
  try {
    const name = /\\bootmgfw\.efi$/i.test(loader) ? WINDOWS_LABEL : label;
    const wanted = { path: claim.path, partition, guid, label: name, loader };
    const { entry, evidence } = await writeEntry(wanted, wait);
    return { evidence, warnings, loader, entry };
  } catch (error) {
    if (!isImagingError(error) || hasCode(error, 'TASK_CANCELLED')) throw error;
    if (!loaders.fallback) throw failed(error.message, { cause: error.code, ...error.details }, error);
    warnings.push(`${error.message}; the firmware has to find ${fallback} by itself`);
    const evidence = [{ what: 'boot loader', proof: `${fallback} exists on partition ${guid}` }];
    return { evidence, warnings, loader: fallback, entry: null };
  }
};

/** the name by which Windows' own tools and stale entries of it go */
const WINDOWS_LABEL = 'Windows Boot Manager';

interface Wanted {
  path: string;
  partition: number;
  guid: string;
  label: string;
  loader: string;
}

interface Wait {
  signal?: AbortSignal;
}

const writeEntry = async (wanted: Wanted, wait: Wait): Promise<{ entry: string; evidence: Evidence[] }> => {
  const before = await readBootMenu(wait);
  const present = await presentPartitions(wait);
  const stale = replacedEntries(before, { partition: wanted.guid, label: wanted.label }, present);
  for (const { number } of stale) {
    await run('efibootmgr', ['--quiet', '--bootnum', number, '--delete-bootnum'], wait);
  }
  const kept = await readBootMenu(wait);
  // create-only: --create would put it in front of the network
  const place = ['--disk', wanted.path, '--part', String(wanted.partition)];
  const what = ['--label', wanted.label, '--loader', wanted.loader];
  await run('efibootmgr', ['--quiet', '--create-only', ...place, ...what], wait);
  const known = new Set(kept.entries.map(({ number }) => number));
  const added = (await readBootMenu(wait)).entries.find(({ number }) => !known.has(number));
  if (!added) throw failed('the new entry is not in the firmware’s menu', {});
  const removed = stale.map(({ number }) => number).filter((number) => number !== added.number);
  const order = orderWith(
    { ...before, order: before.order.filter((number) => number !== added.number) },
    added.number,
    removed,
  );
  await run('efibootmgr', ['--quiet', '--bootorder', order.join(',')], wait);
  await run('efibootmgr', ['--quiet', '--bootnext', added.number], wait);
  return { entry: added.number, evidence: provedBy(await readBootMenu(wait), wanted, added.number, order) };
};

/** Firmware may answer "written" and forget: what counts is what is read. */
const provedBy = (menu: BootMenu, wanted: Wanted, number: string, order: readonly string[]): Evidence[] => {
  const mine = menu.entries.filter((entry) => entry.partition === wanted.guid);
  const [entry] = mine;
  const problems: string[] = [];
  if (mine.length !== 1) problems.push(`${mine.length} entries point to the partition`);
  if (entry?.number !== number || !entry.active) problems.push(`entry ${number} is missing or not active`);
  if (entry?.loader?.toLowerCase() !== wanted.loader.toLowerCase()) {
    problems.push(`the loader is ${entry?.loader ?? 'missing'}, not ${wanted.loader}`);
  }
  if (menu.next !== number) problems.push(`BootNext is ${menu.next ?? 'not set'}`);
  if (menu.order.join() !== order.join()) problems.push(`the boot order is ${menu.order.join()}`);
  if (problems.length > 0) throw failed(`read back: ${problems.join(', ')}`, { problems });
  return [
    {
      what: 'EFI boot entry',
      proof: `Boot${number} "${wanted.label}" read back: partition ${wanted.guid}, ${wanted.loader}, order ${order.join()}`,
    },
    { what: 'BootNext', proof: `read back as ${number}` },
  ];
};

const partitionGuid = async (path: string, number: number, wait: Wait): Promise<string> => {
  const found = (await readTable(path, wait)).partitions.find((partition) => partition.number === number);
  if (found?.uuid) return found.uuid;
  throw failed(`${path} has no GPT partition ${number}`, { path, number });
};

const loadersOn = async (device: string, arch: EfiArch, wait: Wait): Promise<Loaders> => {
  await using mounted = await mountReadOnly(device, 'vfat', wait);
  return await findLoaders(mounted.path, arch);
};

/** Partition GUIDs of all disks, lower case. */
const presentPartitions = async (wait: Wait): Promise<Set<string>> => {
  const guids = new Set<string>();
  for (const disk of await listDisks(wait)) {
    if (disk.skipped) continue;
    try {
      for (const { uuid } of (await readTable(disk.path, wait)).partitions) guids.add(uuid);
    } catch (error) {
      // another disk that cannot be read has no say here
      if (!isImagingError(error) || hasCode(error, 'TASK_CANCELLED')) throw error;
    }
  }
  return guids;
};

const failed = (reason: string, details: Record<string, unknown>, cause?: unknown): ImagingError =>
  new ImagingError('BOOT_ENTRY_FAILED', `Cannot set the EFI boot entry: ${reason}`, { details, cause });
