/**
 * Background work of one transfer: started without waiting, limited in number, never lost. The first failure
 * aborts `signal` and is what `drain` and `enter` throw.
 */
export interface Lanes {
  /** aborted by the caller's signal or by the first failure */
  readonly signal: AbortSignal;
  /** Wait for a free lane, then run `work` in it without waiting for its end. */
  enter(work: () => Promise<void>): Promise<void>;
  /** Wait until no lane is taken; throws the first failure. */
  drain(): Promise<void>;
  /** Wait until no lane is taken, whatever happened: before descriptors are closed. */
  settle(): Promise<void>;
}

/** `limit` pieces of work at a time. Lanes that share a `failure` stop together. */
export const createLanes = (limit: number, failure: Failure): Lanes => {
  const running = new Set<Promise<void>>();

  const enter = async (work: () => Promise<void>): Promise<void> => {
    while (running.size >= limit) await Promise.race(running);
    failure.check();
    const lane: Promise<void> = work()
      .catch((error) => failure.fail(error))
      .finally(() => running.delete(lane));
    running.add(lane);
  };

  const settle = async (): Promise<void> => {
    while (running.size > 0) await Promise.all(running);
  };

  const drain = async (): Promise<void> => {
    await settle();
    failure.check();
  };

  return { signal: failure.signal, enter, drain, settle };
};

/** The first failure of several pieces of work, and a signal that stops the others. */
export interface Failure {
  readonly signal: AbortSignal;
  fail(error: unknown): void;
  /** Throws the first failure, or the caller's reason to stop. */
  check(): void;
}

export const createFailure = (outer?: AbortSignal): Failure => {
  const controller = new AbortController();
  const signal = outer ? AbortSignal.any([outer, controller.signal]) : controller.signal;
  return {
    signal,
    fail: (error) => controller.abort(error),
    check: () => signal.throwIfAborted(),
  };
};

/** Wait for all, then fail with the first failure: nothing may still be at work while the caller cleans up. */
export const allSettled = async (promises: Promise<unknown>[]): Promise<void> => {
  const results = await Promise.allSettled(promises);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
};
