import { claimDisk } from '../disk/claim.ts';
import type { Disk } from '../disk/disk.ts';
import { readSmart } from '../disk/smart.ts';
import { kernelNameOf, readAttribute, sysfsOf } from '../disk/sysfs.ts';
import { hasCode, ImagingError, toImagingError } from '../errors.ts';
import { openDevice } from '../image/device.ts';
import { createPool } from '../image/pool.ts';
import { run } from '../process/run.ts';
import { type Smart, type SurfaceDisk, type SurfaceMode, smartSchema } from '../protocol/index.ts';
import { badSurfaceOf, collectBadBlocks } from './bad-blocks.ts';
import { PUT_BACK_MS, runBadblocks } from './badblocks.ts';
import { planBlocks } from './block-plan.ts';
import { mapLatency } from './latency.ts';
import { refine, unreadableIn } from './refine.ts';
import { verdictOf } from './verdict.ts';
import { type Watched, type WatchOptions, watchDisk } from './watch.ts';

export interface DiskTest {
  mode: SurfaceMode;
  /** bytes that were tested since the last call */
  onProgress: (bytes: number) => void;
  say: (text: string) => void;
  /** a bad range, the moment it is found */
  found: (text: string) => void;
  warn: (text: string) => void;
  signal: AbortSignal;
  /** for tests */
  runTool?: typeof run;
  watch?: Omit<WatchOptions, 'signal'>;
}

/** ranges that are told of one by one while the test runs; the report names more */
const TOLD_RANGES = 100;
/** giving back a disk that hangs */
const RELEASE_MS = 10_000;

/**
 * Test one disk: SMART, badblocks over all of it, what is bad sector by sector, how long reads take, SMART again. The report is
 * filled in as things become known, so that it is worth something whatever happens; `report.verdict` is there at the end, and
 * where the test is cut off, if what was found suffices for "bad".
 *
 * @throws ImagingError DISK_IN_USE, DISK_CHANGED (read-write), DISK_LOST, DISK_STALLED, TOOL_FAILED, TASK_CANCELLED
 */
export const testDisk = async (disk: Disk, report: SurfaceDisk, options: DiskTest): Promise<void> => {
  const { mode, signal, runTool = run } = options;
  const began = performance.now();
  const before = smartOf(await readSmart(disk.path, runTool));
  let trouble: string | null = null;
  const claim = mode === 'read-write' ? await claimDisk(disk, { raidMember: true, signal }) : null;
  try {
    const graceMs = mode === 'read-write' ? PUT_BACK_MS + 5000 : 5000;
    await watchDisk(disk, { graceMs, ...options.watch, signal }, (watched) =>
      testSurface(disk, report, options, watched),
    );
  } catch (thrown) {
    const error = toImagingError(thrown);
    if (hasCode(error, 'DISK_LOST') || hasCode(error, 'DISK_STALLED')) trouble = error.message;
    throw error;
  } finally {
    if (claim) await within(RELEASE_MS, claim.release(), options.warn);
    const after = signal.aborted ? before : smartOf(await readSmart(disk.path, runTool));
    report.smart = { before, after };
    report.seconds = (performance.now() - began) / 1000;
    const isComplete = report.bytes === disk.size && report.latency !== null && trouble === null;
    const { verdict, reasons } = verdictOf({ ...report, trouble });
    if (isComplete || verdict === 'bad') Object.assign(report, { verdict, reasons });
  }
};

const smartOf = (facts: Smart): Smart => smartSchema.parse(facts);

const testSurface = async (
  disk: Disk,
  report: SurfaceDisk,
  options: DiskTest,
  { signal, alive }: Watched,
): Promise<void> => {
  const plan = planBlocks(disk.size, disk.physicalSectorSize);
  report.blockSize = plan.blockSize;
  const found = collectBadBlocks(plan.blockSize);
  let share = 0;
  const reach = (now: number): void => {
    const bytes = Math.floor(now * plan.blocks) * plan.blockSize;
    options.onProgress(bytes - report.bytes);
    report.bytes = bytes;
    share = now;
  };
  const tell = (): void => {
    report.bad = badSurfaceOf(found.named(), found.more());
    options.say(`${(share * 100).toFixed(1)} %${wordsOf(report)}`);
  };
  const onBad = (block: number): void => {
    const range = found.add(block);
    alive();
    if (range && found.ranges <= TOLD_RANGES) {
      const more = found.ranges === TOLD_RANGES ? '; more are counted, and named at the end' : '';
      options.found(`${disk.path}: bad block at LBA ${range.offset / 512} (byte ${range.offset})${more}`);
    }
  };
  if (plan.blocks > 0) {
    const onShare = (now: number): void => {
      if (now > share) alive();
      reach(now);
      tell();
    };
    const before = await readCounters(disk.path);
    try {
      const { path } = disk;
      const { stoppedEarly } = await runBadblocks({
        ...{ path, mode: options.mode, plan, onShare, onBad, signal },
      });
      if (stoppedEarly)
        options.warn(`${path}: more bad blocks than anybody needs to know; the test stopped there`);
    } finally {
      tell();
      report.kernel = await countedSince(disk.path, before);
    }
    requireRead(disk, report);
  }

  options.say(`sectors of ${found.blocks} bad blocks`);
  const device = await openDevice(disk.path, { write: false, start: 0, size: disk.size, chunkSize: 4096 });
  // of this disk alone: what hangs holds nobody else up
  const pool = createPool({ workers: 1, memory: 65_536 });
  try {
    const onRead = alive;
    const around = { device, pool, blockSize: plan.blockSize, onRead, signal };
    const sectors = await refine(found.named(), around);
    if (plan.tail > 0) {
      const tail = { offset: disk.size - plan.tail, length: plan.tail };
      sectors.push(...(await unreadableIn(tail, around)));
    }
    report.bad = badSurfaceOf(sectors, found.more());
    if (report.bytes === plan.blocks * plan.blockSize) {
      options.onProgress(plan.tail);
      report.bytes = disk.size;
    }
    options.say(`latency${wordsOf(report)}`);
    const { map, unreadable } = await mapLatency({
      ...{ device, pool, size: disk.size, bad: sectors, onRead, signal },
    });
    report.bad = badSurfaceOf([...sectors, ...unreadable], found.more());
    report.latency = map;
    options.say(`done${wordsOf(report)}`);
  } finally {
    await pool.close();
    await device.close();
  }
};

const wordsOf = ({ bad }: SurfaceDisk): string => {
  if (bad.sectors === 0) return '';
  const last = bad.ranges.at(-1);
  const ranges = bad.ranges.length + bad.more.ranges;
  return `, ${bad.sectors} bad sectors in ${ranges} ranges${last ? `, the last at LBA ${last.lba}` : ''}`;
};

/** Bytes that the kernel has read and written; null for what is no block device, or where it does not count. */
const readCounters = async (path: string): Promise<{ read: number; written: number } | null> => {
  const folder = sysfsOf(kernelNameOf(path));
  const stat = await readAttribute(folder, 'stat');
  if (stat === null || (await readAttribute(folder, 'queue/iostats')) === '0') return null;
  // fields 3 and 7 of Documentation/block/stat.rst, in 512 bytes on every disk
  const fields = stat.split(/\s+/).map(Number);
  return { read: (fields[2] ?? 0) * 512, written: (fields[6] ?? 0) * 512 };
};

const countedSince = async (
  path: string,
  before: Awaited<ReturnType<typeof readCounters>>,
): Promise<SurfaceDisk['kernel']> => {
  const now = await readCounters(path);
  if (!now || !before || now.read < before.read) return null;
  return { read: now.read - before.read, written: now.written - before.written };
};

/** A tool's word is no proof: what is not bad must have come from the disk, by the kernel's own count. */
const requireRead = (disk: Disk, { kernel, bytes, bad, blockSize }: SurfaceDisk): void => {
  const blocks = bad.ranges.reduce((sum, { size }) => sum + size + 2 * blockSize, bad.more.sectors * 512);
  if (!kernel || kernel.read >= bytes - blocks) return;
  throw new ImagingError(
    'TOOL_FAILED',
    `Cannot test ${disk.path}: badblocks says that it read ${bytes} bytes, the kernel counts ${kernel.read}`,
    { details: { path: disk.path, bytes, read: kernel.read } },
  );
};

/** A disk that hangs cannot be given back either, and that must not hold up what is known of it. */
const within = async (ms: number, work: Promise<void>, warn: (text: string) => void): Promise<void> => {
  const late = new Promise<'late'>((resolve) => {
    setTimeout(() => resolve('late'), ms).unref();
  });
  try {
    if ((await Promise.race([work, late])) === 'late') warn('the disk could not be given back: it hangs');
  } catch (error) {
    warn(`the disk could not be set read-only again: ${toImagingError(error).message}`);
  }
};
