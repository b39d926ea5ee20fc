import { hash } from 'node:crypto';
import type { Plan, PlannedPartition } from '../protocol/index.ts';

/**
 * The plan with GUIDs, or an MBR signature, that no other disk has. They follow from `seed` and the partitions'
 * names alone. Kept partitions keep theirs. Pure.
 */
export const freshIdentity = (plan: Plan, seed: string): Plan => {
  const of = (what: string): string => hash('sha256', `${seed}\n${plan.imageDisk}\n${what}`);
  if (plan.table === 'dos') return { ...plan, tableId: signature(of('table')) };
  const renamed = (partition: PlannedPartition): PlannedPartition => ({
    ...partition,
    uuid: uuid(of(partition.name)),
  });
  return { ...plan, tableId: uuid(of('table')), partitions: plan.partitions.map(renamed) };
};

/** RFC 9562 section 5.8: version 8, made from whatever its maker likes */
const uuid = (hex: string): string => {
  const variant = ((Number.parseInt(hex.slice(16, 17), 16) & 3) | 8).toString(16);
  const parts = [hex.slice(0, 8), hex.slice(8, 12), `8${hex.slice(13, 16)}`, variant + hex.slice(17, 20)];
  return [...parts, hex.slice(20, 32)].join('-');
};

/** zero would mean a disk without a signature */
const signature = (hex: string): string => `0x${hex.slice(0, 8).replace(/^0{8}$/, '00000001')}`;
