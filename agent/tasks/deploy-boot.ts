import type { DiskClaim } from '../disk/claim.ts';
import type { DiskTable } from '../disk/table.ts';
import { ImagingError } from '../errors.ts';
import { setBootEntry } from '../machine/efi-boot.ts';
import { placeFallbackLoader } from '../machine/efi-fallback.ts';
import { firmwareArch } from '../machine/efi-loader.ts';
import type { Manifest, Plan } from '../protocol/index.ts';
import type { TaskContext } from './context.ts';

/** Before the table is written: a loader that the firmware finds without NVRAM, on each EFI system partition. */
export const placeFallback = async (
  manifest: Manifest,
  plan: Plan,
  nodes: ReadonlyMap<string, string>,
  context: TaskContext,
): Promise<void> => {
  if (manifest.firmware !== 'uefi' || !plan.partitions.some(({ role }) => role === 'esp')) return;
  context.step('fallback-loader');
  for (const { name, role, method, filesystem } of plan.partitions) {
    const device = nodes.get(name);
    if (role !== 'esp' || !device) continue;
    if (filesystem !== 'vfat' || method !== 'used') {
      context.warn(`${name} is an EFI system partition that was kept raw: its loaders stay as they are`);
      continue;
    }
    const { evidence, warnings } = await placeFallbackLoader(device, await firmwareArch(), {
      signal: context.signal,
    });
    for (const { what, proof } of evidence) context.prove(what, proof);
    for (const warning of warnings) context.warn(warning);
  }
};

/** After the table was written: the firmware's boot entry for the deployed disk. */
export const setEntry = async (
  { claim, manifest, plan, table }: { claim: DiskClaim; manifest: Manifest; plan: Plan; table: DiskTable },
  context: TaskContext,
): Promise<void> => {
  if (manifest.firmware !== 'uefi') return;
  const esp = plan.partitions.find(({ role }) => role === 'esp');
  // a further disk of an image holds data, the first one boots; an ESP that stays has its entry already
  if (!esp && (plan.imageDisk !== 'd1' || plan.kept.length > 0)) return;
  context.step('boot-entry');
  const device = table.partitions.find(({ number }) => number === esp?.number)?.path;
  if (!esp || !device) {
    throw new ImagingError(
      'BOOT_ENTRY_FAILED',
      'Cannot set the boot entry: the deployed disk has no EFI system partition',
    );
  }
  const label = manifest.os?.name ?? manifest.image;
  const { signal } = context;
  const entry = await setBootEntry({ claim, partition: esp.number, device, label, signal });
  for (const { what, proof } of entry.evidence) context.prove(what, proof);
  for (const warning of entry.warnings) context.warn(warning);
};
