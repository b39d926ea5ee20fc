import { roleOf } from '../disk/roles.ts';
import type { PartitionRole } from '../protocol/index.ts';
import type { Look } from './volume.ts';

/** What a volume without a partition type is for: what lies in it says so. */
export const roleOfVolume = ({ filesystem, os }: Pick<Look, 'filesystem' | 'os'>): PartitionRole => {
  const role = roleOf({ type: '', filesystem: filesystem?.type ?? '', hasOs: os !== null });
  return role === 'unknown' && filesystem !== null ? 'data' : role;
};
