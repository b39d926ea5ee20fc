import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { type ErrorCode, ImagingError } from '../errors.ts';
import { type Arena, createArena, type Region } from './arena.ts';
import type { JobAnswer, JobKind, JobRequest, Jobs, StageSeconds } from './job.ts';
import { noSeconds } from './perform.ts';

export interface PoolOptions {
  /** threads; default: the machine's cores, 1 to 8 */
  workers?: number;
  /** bytes of shared memory for chunks on their way; default 176 MiB, so that the process stays under 512 */
  memory?: number;
}

/** What happened in a pool so far: take it before and after, the difference is the work between. */
export interface PoolUsage extends StageSeconds {
  /** seconds that workers had nothing to do, all workers together */
  idle: number;
  /** of these, while somebody waited for the other side, or for the disk to take what was written */
  starved: Record<WaitCause, number>;
}

/** What workers without work wait for; where both are waited for, the disk is what holds things up. */
export type WaitCause = 'write' | 'network';

/**
 * Worker threads that do all work on chunk bytes: device reads and writes, hash, zstd. The main thread only
 * passes numbers around, so that a lease's heartbeat is never late because of an image.
 */
export interface ChunkPool {
  readonly workers: number;
  readonly arena: Arena;
  /**
   * Do one job on some worker; jobs start in the order of the calls. There is no cancelling: a job is one
   * chunk, and a caller that stops waits for its jobs before it closes a descriptor or frees a region.
   *
   * @throws ImagingError of the job
   */
  run<K extends JobKind>(kind: K, job: Jobs[K]['job']): Promise<Jobs[K]['result']>;
  /** Wrap what waits for something else than workers, so that usage() can tell why they were idle. */
  waiting<T>(cause: WaitCause, work: () => Promise<T>): Promise<T>;
  /** Where in the shared memory these bytes lie, or null if they are elsewhere. */
  locate(bytes: Uint8Array): number | null;
  /** Copy bytes into a region of at least `size` bytes. */
  hold(bytes: Uint8Array, signal?: AbortSignal): Promise<Region>;
  usage(): PoolUsage;
  /** End the threads. Jobs still under way fail with INTERNAL. */
  close(): Promise<void>;
}

interface Task {
  request: JobRequest;
  resolve: (result: never) => void;
  reject: (error: Error) => void;
}

/** `work` for everything that needs a core, `sync` for what only waits for the store's disk */
type Lane = 'work' | 'sync';

interface Thread {
  worker: Worker;
  lane: Lane;
  tasks: Map<number, Task>;
  /** when it last ran out of work, ms; null while it has some */
  idleSince: number | null;
}

/** threads that only wait for the store's disk, so that no core does */
export const SYNC_THREADS = 2;
/** one job under way and one waiting in the thread: no gap between them, and order hardly suffers */
const DEPTH = 2;
/** chunk bytes lie outside the heap; the default would let every thread's grow for nothing */
const HEAP = { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 64 };
const MIB = 1024 * 1024;

/** `worker.ts` in the source tree, `worker.mjs` beside the bundle. */
const workerUrl = new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.mjs', import.meta.url);

/** Start a pool. Close it in the end; threads without work do not keep the process alive. */
export const createPool = (options: PoolOptions = {}): ChunkPool => {
  const { workers = Math.min(8, Math.max(1, availableParallelism())), memory = 176 * MIB } = options;
  const arena = createArena(memory);
  const queues = { work: [] as Task[], sync: [] as Task[] };
  const total = { ...noSeconds(), idle: 0 };
  const waits: Record<WaitCause, number> = { write: 0, network: 0 };
  const starved: Record<WaitCause, number> = { write: 0, network: 0 };
  let idleCounted = 0;
  let lastNumber = 0;
  let broken: ImagingError | undefined;

  const start = (lane: Lane): Thread => {
    const worker = new Worker(workerUrl, {
      workerData: { shared: arena.buffer },
      name: `image-${lane}`,
      resourceLimits: HEAP,
    });
    const thread: Thread = { worker, lane, tasks: new Map(), idleSince: performance.now() };
    worker.unref();
    worker.on('message', (answer: JobAnswer) => settle(thread, answer));
    worker.on('error', (error) => fail(`a worker thread failed (${error.message})`, error));
    worker.on('exit', () => fail('a worker thread ended'));
    return thread;
  };

  const settle = (thread: Thread, answer: JobAnswer): void => {
    const task = thread.tasks.get(answer.number);
    thread.tasks.delete(answer.number);
    for (const stage of ['read', 'hash', 'codec', 'write'] as const) total[stage] += answer.seconds[stage];
    feed(thread.lane);
    if (thread.tasks.size === 0) {
      thread.idleSince = performance.now();
      thread.worker.unref();
    }
    if (answer.ok) task?.resolve(answer.result as never);
    else task?.reject(revive(answer.error));
  };

  const fail = (reason: string, cause?: unknown): void => {
    broken ??= new ImagingError('INTERNAL', `Cannot work on chunks: ${reason}`, { cause });
    const left = [
      ...queues.work.splice(0),
      ...queues.sync.splice(0),
      ...threads.flatMap(({ tasks }) => [...tasks.values()]),
    ];
    for (const { tasks } of threads) tasks.clear();
    for (const task of left) task.reject(broken);
  };

  const feed = (lane: Lane): void => {
    const queue = queues[lane];
    if (lane === 'sync' && queue.length > 0 && !threads.some((thread) => thread.lane === lane)) {
      threads.push(...Array.from({ length: SYNC_THREADS }, () => start(lane)));
    }
    const own = threads.filter((thread) => thread.lane === lane);
    while (queue.length > 0) {
      const thread = own.reduce((least, other) => (other.tasks.size < least.tasks.size ? other : least));
      if (thread.tasks.size >= DEPTH) return;
      const task = queue.shift();
      if (!task) return;
      if (thread.idleSince !== null) {
        if (lane === 'work') total.idle += (performance.now() - thread.idleSince) / 1000;
        thread.idleSince = null;
        thread.worker.ref();
      }
      thread.tasks.set(task.request.number, task);
      thread.worker.postMessage(task.request);
    }
  };

  const run: ChunkPool['run'] = (kind, job) =>
    new Promise((resolve, reject) => {
      if (broken) {
        reject(broken);
        return;
      }
      lastNumber += 1;
      const lane = kind === 'publish' ? 'sync' : 'work';
      queues[lane].push({ request: { number: lastNumber, kind, job }, resolve, reject });
      feed(lane);
    });

  const idleSeconds = (): number => {
    const now = performance.now();
    const idle = threads
      .filter(({ lane }) => lane === 'work')
      .map(({ idleSince }) => (idleSince === null ? 0 : (now - idleSince) / 1000));
    return total.idle + idle.reduce((sum, seconds) => sum + seconds, 0);
  };

  /** the idle seconds since the last call, to what was waited for in them */
  const account = (): number => {
    const idle = idleSeconds();
    const cause = waits.write > 0 ? 'write' : waits.network > 0 ? 'network' : null;
    if (cause) starved[cause] += idle - idleCounted;
    idleCounted = idle;
    return idle;
  };

  const waiting: ChunkPool['waiting'] = async (cause, work) => {
    account();
    waits[cause] += 1;
    try {
      return await work();
    } finally {
      account();
      waits[cause] -= 1;
    }
  };

  const usage = (): PoolUsage => ({ ...total, idle: account(), starved: { ...starved } });

  const close = async (): Promise<void> => {
    fail('the pool is closed');
    await Promise.all(threads.map(({ worker }) => worker.terminate()));
  };

  const locate = (bytes: Uint8Array): number | null =>
    bytes.buffer === arena.buffer ? bytes.byteOffset : null;

  const hold = async (bytes: Uint8Array, signal?: AbortSignal): Promise<Region> => {
    const region = await arena.allocate(bytes.length, signal);
    region.bytes.set(bytes);
    return region;
  };

  const threads = Array.from({ length: workers }, () => start('work'));
  return { workers, arena, run, waiting, locate, hold, usage, close };
};

/** Several pools as one, for a busy meter: each disk of a wipe has its own. */
export const togetherOf = (pools: readonly ChunkPool[]): Pick<ChunkPool, 'workers' | 'usage'> => ({
  workers: pools.reduce((sum, { workers }) => sum + workers, 0),
  usage: () =>
    pools
      .map((pool) => pool.usage())
      .reduce((all, one) => ({
        ...{ read: all.read + one.read, hash: all.hash + one.hash, codec: all.codec + one.codec },
        ...{ write: all.write + one.write, idle: all.idle + one.idle },
        starved: {
          write: all.starved.write + one.starved.write,
          network: all.starved.network + one.starved.network,
        },
      })),
});

const revive = (error: Extract<JobAnswer, { ok: false }>['error']): Error => {
  const revived = new ImagingError(error.code as ErrorCode, error.message, { details: error.details });
  // callers ask isErrno() of what the store's jobs throw (ENOSPC)
  return error.errno === undefined ? revived : Object.assign(new Error(error.message), { code: error.errno });
};
