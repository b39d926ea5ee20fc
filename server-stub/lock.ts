/** Many may share, one may exclude; in order of arrival, so that neither side starves. */
export interface SharedLock {
  shared<T>(job: () => Promise<T>): Promise<T>;
  exclusive<T>(job: () => Promise<T>): Promise<T>;
}

export const createSharedLock = (): SharedLock => {
  /** the last exclusive job, and everything that must end before the next one */
  let gate: Promise<unknown> = Promise.resolve();
  let inside: Promise<unknown>[] = [];

  const shared = <T>(job: () => Promise<T>): Promise<T> => {
    const run = gate.then(job);
    const settled = run.then(
      () => undefined,
      () => undefined,
    );
    inside.push(settled);
    void settled.then(() => {
      inside = inside.filter((other) => other !== settled);
    });
    return run;
  };

  const exclusive = <T>(job: () => Promise<T>): Promise<T> => {
    const run = Promise.all([gate, ...inside]).then(job);
    gate = run.catch(() => undefined);
    return run;
  };

  return { shared, exclusive };
};
