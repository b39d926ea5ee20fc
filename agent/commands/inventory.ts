import { readIdentity } from '../machine/identity.ts';
import { collectInventory } from '../machine/inventory.ts';

/** `fog inventory`: what the task of this name would send, on this terminal. */
export const showInventory = async ({ json }: { json: boolean }): Promise<void> => {
  const found = await collectInventory({ identity: await readIdentity({}) });
  if (json) {
    console.log(JSON.stringify(found, null, 2));
    return;
  }
  const { identity, cpu, memoryBytes, disks, network } = found;
  console.log(
    `${identity.manufacturer ?? ''} ${identity.product ?? ''}  serial ${identity.serial ?? 'none'}  ${identity.firmware}, Secure Boot ${identity.secureBoot}`,
  );
  console.log(
    `${cpu.model}  ${cpu.cores} cores, ${cpu.threads} threads  ${(memoryBytes / 2 ** 30).toFixed(1)} GiB`,
  );
  for (const disk of disks)
    console.log(
      `disk ${disk.name}  ${(disk.size / 1e9).toFixed(1)} GB  ${disk.model ?? ''}  ${disk.serial ?? ''}`,
    );
  for (const nic of network)
    console.log(
      `nic ${nic.name}  ${nic.mac}  ${nic.driver ?? 'no driver'}  ${nic.carrier ? 'link' : 'no link'}`,
    );
};
