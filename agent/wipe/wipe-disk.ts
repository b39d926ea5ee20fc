import type { DiskClaim } from '../disk/claim.ts';
import { flushDevice } from '../disk/device-io.ts';
import { removePartitions } from '../disk/partition-nodes.ts';
import { clearStaleSignatures } from '../disk/signatures.ts';
import { ImagingError } from '../errors.ts';
import { openDevice } from '../image/device.ts';
import type { Extent } from '../image/extent.ts';
import type { ChunkPool } from '../image/pool.ts';
import type { ByteRange, WipedDisk } from '../protocol/index.ts';
import { BLOCK, compare, overwrite } from './pass.ts';
import { bytesOf, type Pass } from './plan.ts';
import { samplePlaces } from './sample.ts';

/** What is to be done to one disk, fixed before the first write. */
export interface DiskPlan {
  passes: Pass[];
  /** read back after the last pass */
  verify: { method: 'full' | 'sample'; places: ByteRange[] };
}

/** Zeros at the ends are read back whole; of a whole disk all, or what the task asks for. */
export const planVerify = (
  passes: readonly Pass[],
  method: 'full' | 'sample',
  size: number,
  sector: number,
): DiskPlan['verify'] => {
  const last = passes.at(-1);
  if (method === 'full' || last?.key === null) return { method: 'full', places: last?.ranges ?? [] };
  return { method, places: samplePlaces(size, sector) };
};

/** Bytes that are written and read: the length of the progress bar. */
export const workOf = ({ passes, verify }: DiskPlan): number =>
  passes.reduce((sum, { ranges }) => sum + bytesOf(ranges), bytesOf(verify.places));

export interface OverwriteOptions {
  claim: DiskClaim;
  plan: DiskPlan;
  pool: ChunkPool;
  onProgress: (bytes: number) => void;
  say: (what: string) => void;
  /** filled as it goes, so that it says what was done whatever comes next */
  report: Pick<WipedDisk, 'passes' | 'verification'>;
  signal: AbortSignal;
}

/**
 * Overwrite a claimed disk, and see by reading past every cache that it holds the last pass and nothing that looks like a table or a
 * filesystem.
 *
 * @throws ImagingError WIPE_INCOMPLETE (sectors could not be overwritten; `details.ranges`), READ_BACK_MISMATCH, DISK_WRITE_FAILED,
 *   DISK_READ_FAILED, TASK_CANCELLED
 */
export const overwriteDisk = async (options: OverwriteOptions): Promise<void> => {
  const { claim, plan, pool, onProgress, say, report, signal } = options;
  const { path, disk } = claim;
  await removePartitions(claim, { signal });
  const range = { start: 0, size: disk.size, chunkSize: BLOCK };
  await using stack = new AsyncDisposableStack();
  const device = await openDevice(path, { ...range, write: true });
  stack.defer(() => device.close());
  for (const pass of plan.passes) {
    say(`pass ${pass.number} of ${plan.passes.length}`);
    const started = performance.now();
    const { key, ranges } = pass;
    const done = await overwrite({ device, pool, ranges, key, onProgress, signal });
    report.passes.push({
      number: pass.number,
      pattern: key === null ? 'zeros' : 'random',
      bytes: done.written,
      seconds: (performance.now() - started) / 1000,
      missed: missedOf(done.missed, disk.logicalSectorSize),
    });
    if (done.stopped || done.missed.length > 0) throw incomplete(claim, report, done.stopped);
  }
  if (plan.passes.at(-1)?.key === null) await clearStaleSignatures(path, [], { signal });
  await flushDevice(path, { signal });

  say('reading back');
  const last = plan.passes.at(-1);
  const found = await compare({
    ...{ device, pool, onProgress, signal },
    ranges: plan.verify.places,
    key: last?.key ?? null,
  });
  const wrong = [...found.different, ...found.unreadable].sort((a, b) => a.offset - b.offset);
  report.verification = {
    method: plan.verify.method,
    places: plan.verify.places.length,
    bytes: found.bytes,
    wrong: missedOf(wrong, disk.logicalSectorSize),
    key: last?.key ?? null,
  };
  const [first] = wrong;
  if (!first) return;
  throw new ImagingError(
    'READ_BACK_MISMATCH',
    `Cannot call ${path} erased: at ${first.offset} and ${wrong.length - 1} more places it returned other bytes than were written, or none`,
    {
      details: { path, serial: disk.serial ?? null, ranges: report.verification.wrong.ranges.slice(0, 100) },
    },
  );
};

/** Ranges that a report names of each disk. */
const NAMED_RANGES = 1000;

/** Bytes of a disk as its sectors. */
export const missedOf = (
  extents: readonly Extent[],
  sectorSize: number,
): WipedDisk['passes'][number]['missed'] => {
  const ranges = extents.map(({ offset, length }) => {
    const lba = Math.floor(offset / sectorSize);
    return { lba, sectors: Math.ceil((offset + length) / sectorSize) - lba };
  });
  return {
    sectors: ranges.reduce((sum, { sectors }) => sum + sectors, 0),
    ranges: ranges.slice(0, NAMED_RANGES),
  };
};

const incomplete = (
  { path, disk }: DiskClaim,
  report: OverwriteOptions['report'],
  stopped: ImagingError | null,
): ImagingError => {
  const missed = report.passes.at(-1)?.missed ?? { sectors: 0, ranges: [] };
  const share = (missed.sectors * disk.logicalSectorSize * 100) / disk.size;
  const [first] = missed.ranges;
  const where = first ? `, the first at LBA ${first.lba}` : '';
  const why = stopped ? `: ${stopped.message}` : '';
  return new ImagingError(
    'WIPE_INCOMPLETE',
    `Cannot erase all of ${path}: partially erased, ${missed.sectors} sectors (${share.toPrecision(3)} %) could not be overwritten${where}${why}`,
    {
      details: {
        path,
        serial: disk.serial ?? null,
        sectors: missed.sectors,
        ranges: missed.ranges.slice(0, 100),
      },
      cause: stopped ?? undefined,
    },
  );
};
