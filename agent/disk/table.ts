import type { ByteRange, Plan } from '../protocol/index.ts';
import type { DiskClaim } from './claim.ts';

/** Bytes throughout; the fields mean what they mean in the manifest's imagePartitionSchema. */
export interface TablePartition {
  path: string;
  number: number;
  start: number;
  size: number;
  type: string;
  uuid: string;
  label: string;
  attributes: string;
}
export interface DiskTable {
  kind: 'gpt' | 'dos' | 'none';
  /** disk GUID, lower case, or MBR signature as 0x… ; empty for none */
  id: string;
  logicalSectorSize: number;
  size: number;
  /** sorted by start */
  partitions: TablePartition[];
}
/** @throws ImagingError LAYOUT_UNSUPPORTED: hybrid MBR, extended partition, other kinds of table */
export declare const readTable: (path: string, options?: { signal?: AbortSignal }) => Promise<DiskTable>;
/** `keep`: ranges never touched (the plan's partitions, when an interrupted deploy goes on). Proved by re-reading. */
export declare const removeTable: (
  claim: DiskClaim,
  options?: { keep?: readonly ByteRange[]; signal?: AbortSignal },
) => Promise<void>;
/**
 * Boot code and table in the plan's final form, then re-read and compared; resolves with what was read back.
 * `bootArea`: the first bytes of the image's disk; of it 0..439, and on dos the gap before the first partition, are written.
 */
export declare const writeTable: (
  claim: DiskClaim,
  plan: Plan,
  options?: { bootArea?: Uint8Array; signal?: AbortSignal },
) => Promise<DiskTable>;
