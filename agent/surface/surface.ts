import { toImagingError } from '../errors.ts';
import type { run } from '../process/run.ts';
import { diskFactsSchema, type SurfaceDisk, type SurfaceMode, toWireError } from '../protocol/index.ts';
import type { Choice } from '../wipe/choose.ts';
import { badSurfaceOf } from './bad-blocks.ts';
import { type DiskTest, testDisk } from './test-disk.ts';

export interface SurfaceOptions {
  choices: readonly Choice[];
  mode: SurfaceMode;
  /** Where a test tells how far it is: bytes over all disks. */
  steps: {
    /** a bad range, the moment it is found */
    found(text: string): void;
    warn(text: string): void;
    testing(total: number): { add(bytes: number): void; say(text: string): void };
  };
  /** told whenever a disk has ended */
  onReport: (disks: readonly SurfaceDisk[]) => void;
  signal: AbortSignal;
  /** for tests */
  runTool?: typeof run;
  watch?: DiskTest['watch'];
}

/** disks at a time: each costs a process and a thread, and they share the machine's bus */
const PARALLEL = 8;

/**
 * Test the chosen disks, several at a time, and say of every disk that was seen what was found. One that fails does not stop the
 * others; what a cancel stops is `interrupted`.
 */
export const testDisks = async (options: SurfaceOptions): Promise<SurfaceDisk[]> => {
  const { choices, mode, steps, signal } = options;
  const entries = choices.map(
    ({ disk, skip }): SurfaceDisk => ({
      ...{ facts: diskFactsSchema.parse(disk), status: skip === null ? 'interrupted' : 'skipped' },
      ...{ reason: skip, error: null, verdict: null, reasons: [], bytes: 0, blockSize: 0, seconds: 0 },
      ...{ kernel: null, bad: badSurfaceOf([]), latency: null, smart: null, startedAt: null, endedAt: null },
    }),
  );
  const works = choices.flatMap(({ disk, skip }, at) => {
    const entry = entries[at];
    return skip === null && entry ? [{ disk, entry }] : [];
  });
  options.onReport(entries);
  const step = steps.testing(works.reduce((sum, { disk }) => sum + disk.size, 0));
  const now = new Map<string, string>();
  const say = (name: string, text: string): void => {
    now.set(name, text);
    step.say([...now].map(([disk, what]) => `${disk} ${what}`).join('; '));
  };

  const one = async ({ disk, entry }: (typeof works)[number]): Promise<void> => {
    entry.startedAt = new Date().toISOString();
    try {
      signal.throwIfAborted();
      await testDisk(disk, entry, {
        ...{ mode, onProgress: step.add, say: (text) => say(disk.name, text) },
        ...{ found: steps.found, warn: steps.warn, signal },
        ...(options.runTool ? { runTool: options.runTool } : {}),
        ...(options.watch ? { watch: options.watch } : {}),
      });
      entry.status = 'tested';
    } catch (thrown) {
      const error = toImagingError(thrown);
      entry.status = signal.aborted ? 'interrupted' : 'failed';
      entry.reason = error.message;
      entry.error = toWireError(error);
      if (!signal.aborted) steps.warn(error.message);
    }
    entry.endedAt = new Date().toISOString();
    say(disk.name, entry.verdict ?? entry.status);
    options.onReport(entries);
  };

  const queue = [...works];
  const lane = async (): Promise<void> => {
    for (let work = queue.shift(); work; work = queue.shift()) await one(work);
  };
  await Promise.all(Array.from({ length: Math.min(PARALLEL, works.length) }, lane));
  return entries;
};
