import { collectInventory } from '../machine/inventory.ts';
import type { Handler } from './context.ts';

/** Collect what the machine is made of and have the server keep it. Writes to no disk. */
export const inventory: Handler<'inventory'> = async (_task, context) => {
  context.step('collect');
  const found = await collectInventory({
    identity: context.identity,
    signal: context.signal,
  });
  context.step('send');
  await context.server.inventory(found, context.signal);
  context.prove('the server keeps the inventory', `acknowledged, collected ${found.collectedAt}`);
  const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const disks = found.disks.filter(({ skipped }) => skipped === undefined);
  return {
    summary: [
      `${found.identity.manufacturer ?? ''} ${found.identity.product ?? ''}`.trim() || 'unknown machine',
      `${found.cpu.model}, ${found.cpu.threads} threads, ${gib(found.memoryBytes)} memory`,
      ...disks.map((disk) => `${disk.name}: ${disk.model ?? 'disk'} ${disk.serial ?? ''}, ${gib(disk.size)}`),
    ].join('\n'),
    inventory: found,
  };
};
