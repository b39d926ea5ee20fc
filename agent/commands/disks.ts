import { listDisks } from '../disk/disk.ts';

/** `fog disks`: what the machine has, by the facts that a task names a disk with. */
export const showDisks = async ({ json }: { json: boolean }): Promise<void> => {
  const disks = await listDisks({});
  if (json) {
    console.log(JSON.stringify(disks, null, 2));
    return;
  }
  for (const disk of disks) {
    const size = `${(disk.size / 1e9).toFixed(1)} GB`;
    const facts = [
      disk.path,
      size,
      disk.transport ?? '',
      disk.model ?? '',
      `serial ${disk.serial ?? 'none'}`,
      `wwn ${disk.wwn ?? 'none'}`,
    ];
    console.log(`${facts.filter(Boolean).join('  ')}${disk.skipped ? `  [skipped: ${disk.skipped}]` : ''}`);
  }
};
