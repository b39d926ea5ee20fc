import { availableParallelism } from 'node:os';
import { claimDisk, type DiskClaim } from '../disk/claim.ts';
import { type ImagingError, toImagingError } from '../errors.ts';
import type { ChunkPool } from '../image/pool.ts';
import { createPool } from '../image/pool.ts';
import { run } from '../process/run.ts';
import { diskFactsSchema, toWireError, type WipedDisk } from '../protocol/index.ts';
import type { Choice } from './choose.ts';
import { readDriveFacts } from './health.ts';
import { readHiddenAreas } from './hidden.ts';
import { planPasses, type WipeMode } from './plan.ts';
import { purgeDisk } from './purge/purge.ts';
import { overwriteDisk, planVerify, workOf } from './wipe-disk.ts';

export interface WipeOptions {
  choices: readonly Choice[];
  mode: WipeMode;
  /** random passes of a full wipe */
  passes: number;
  verify: 'full' | 'sample';
  /** have the drive erase itself first; `preferred`: where it cannot, one random pass over all of it will do */
  purge: 'no' | 'required' | 'preferred';
  steps: WipeSteps;
  signal: AbortSignal;
  /** for tests: tools of a drive that does not exist */
  runTool?: typeof run;
  pollMs?: number;
}

/** Where a wipe tells how far it is. */
export interface WipeSteps {
  log(text: string): void;
  warn(text: string): void;
  /** The drives erase themselves; nothing stops them. */
  purging(message: string): { share(disk: string, share: number): void };
  /** `total` bytes over all disks, written and read */
  overwriting(
    total: number,
    pools: readonly ChunkPool[],
  ): { add(bytes: number): void; say(text: string): void };
}

/** One chosen disk on its way. */
interface Work {
  claim: DiskClaim;
  entry: WipedDisk;
  mode: WipeMode;
}

/**
 * Wipe the chosen disks, all at the same time, and say of every disk that was seen what became of it. One that fails
 * does not stop the others; what a cancel stops is `interrupted`.
 */
export const wipeDisks = async (options: WipeOptions): Promise<WipedDisk[]> => {
  const entries = options.choices.map(
    ({ disk, skip }): WipedDisk => ({
      ...emptyEntry,
      passes: [],
      facts: diskFactsSchema.parse(disk),
      ...(skip === null ? {} : { status: 'skipped' as const, reason: skip }),
    }),
  );
  await using claims = new AsyncDisposableStack();
  const works: Work[] = [];
  for (const [at, { disk, skip }] of options.choices.entries()) {
    const entry = entries[at];
    if (skip !== null || !entry) continue;
    entry.startedAt = new Date().toISOString();
    await guarded(entry, options.signal, async () => {
      const claim = await claimDisk(disk, { raidMember: true, signal: options.signal });
      claims.defer(() => giveBack(claim, options.steps));
      works.push({ claim, entry, mode: options.mode });
    });
  }
  await examine(works, options);
  if (options.purge !== 'no') await purgeAll(works, options);
  await overwriteAll(works, options);
  await examineAgain(works, options);
  return entries;
};

/** What was proved stands: a disk that died, or was pulled out, cannot be flushed or set read-only any more. */
const giveBack = async (claim: DiskClaim, steps: WipeSteps): Promise<void> => {
  try {
    await claim.release();
  } catch (error) {
    steps.warn(`${claim.path} could not be set read-only again: ${toImagingError(error).message}`);
  }
};

const emptyEntry: Omit<WipedDisk, 'facts' | 'passes'> = {
  status: 'interrupted',
  reason: null,
  error: null,
  hidden: null,
  health: null,
  purge: null,
  verification: null,
  startedAt: null,
  endedAt: null,
};

/** Work on one disk: what fails is the disk's own end. */
const guarded = async (entry: WipedDisk, signal: AbortSignal, work: () => Promise<void>): Promise<void> => {
  try {
    signal.throwIfAborted();
    await work();
  } catch (thrown) {
    const error: ImagingError = toImagingError(thrown);
    entry.status = signal.aborted ? 'interrupted' : 'failed';
    entry.reason = error.message;
    entry.error = toWireError(error);
    entry.endedAt = new Date().toISOString();
  }
};

const isGoing = ({ entry }: Work): boolean => entry.endedAt === null;

/** What the drive says of itself before; what it hides is part of what the wipe is worth. */
const examine = async (works: readonly Work[], { runTool = run, steps }: WipeOptions): Promise<void> => {
  for (const { claim, entry } of works) {
    const { firmware, ...before } = await readDriveFacts(claim.path, runTool);
    if (firmware !== null) entry.facts.firmware = firmware;
    entry.health = { before, after: { passed: null, powerOnHours: null, defects: null } };
    entry.hidden = await readHiddenAreas(claim.disk, runTool);
    for (const [name, area] of Object.entries(entry.hidden)) {
      if (area.state === 'present') {
        steps.warn(
          `${claim.path} hides sectors (${name.toUpperCase()}: ${area.detail}): an overwrite does not reach them`,
        );
      }
    }
  }
};

const examineAgain = async (works: readonly Work[], { runTool = run }: WipeOptions): Promise<void> => {
  for (const { claim, entry } of works) {
    const { firmware: _same, ...after } = await readDriveFacts(claim.path, runTool);
    if (entry.health) entry.health.after = after;
  }
};

const purgeAll = async (works: readonly Work[], options: WipeOptions): Promise<void> => {
  const { steps, signal, runTool = run, pollMs = 2000 } = options;
  const going = works.filter(isGoing);
  if (going.length === 0) return;
  const step = steps.purging(going.map(({ claim }) => claim.path).join(', '));
  await Promise.all(
    going.map((work) =>
      guarded(work.entry, signal, async () => {
        const { claim, entry } = work;
        const hidden = entry.hidden ?? (await readHiddenAreas(claim.disk, runTool));
        const { report, error } = await purgeDisk(claim, hidden, {
          run: runTool,
          log: steps.log,
          onShare: (share) => step.share(claim.path, share),
          pollMs,
        });
        entry.purge = report;
        if (!error) return;
        if (options.purge === 'required') throw error;
        steps.warn(`${error.message}; the task allows to overwrite it instead`);
        // the two ends of a fast wipe are not what stands in for an erasure
        if (work.mode === 'fast') work.mode = 'normal';
      }),
    ),
  );
};

const overwriteAll = async (works: readonly Work[], options: WipeOptions): Promise<void> => {
  const { steps, signal } = options;
  const going = works.filter(isGoing).map((work) => {
    const { size, logicalSectorSize } = work.claim.disk;
    const passes = planPasses(work.mode, size, { passes: options.passes });
    return { ...work, plan: { passes, verify: planVerify(passes, options.verify, size, logicalSectorSize) } };
  });
  if (going.length === 0) return;
  // bytes pass through the threads' own memory: an arena of the least size
  const workers = Math.max(2, Math.min(4, Math.floor((2 * availableParallelism()) / going.length)));
  const pools = going.map(() => createPool({ workers, memory: 65_536 }));
  const step = steps.overwriting(
    going.reduce((sum, { plan }) => sum + workOf(plan), 0),
    pools,
  );
  const at = new Map<string, string>();
  try {
    await Promise.all(
      going.map(({ claim, entry, plan }, index) =>
        guarded(entry, signal, async () => {
          const say = (what: string): void => {
            at.set(claim.path, what);
            step.say([...at].map(([path, now]) => `${path} ${now}`).join(', '));
          };
          const pool = pools[index] as ChunkPool;
          await overwriteDisk({ claim, plan, pool, report: entry, onProgress: step.add, say, signal });
          entry.status = statusOf(entry, plan.passes.at(-1)?.key ?? null);
          entry.endedAt = new Date().toISOString();
          say('done');
        }),
      ),
    );
  } finally {
    await Promise.all(pools.map((pool) => pool.close()));
  }
};

/** What was proved: by the drive and its content, by reading back a pass over everything, or only that tables are gone. */
const statusOf = ({ purge }: WipedDisk, key: string | null): WipedDisk['status'] => {
  if (purge?.method) return 'purged-verified';
  return key === null ? 'signatures-removed' : 'cleared-verified';
};
