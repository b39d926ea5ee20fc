/** What readInPasses needs of a capture. */
export interface PassReader {
  /** Begin to read a chunk, perhaps without waiting for its end; what fails comes back by `failed`. */
  start(number: number): Promise<void>;
  /** Wait for every chunk that was begun. */
  drain(): Promise<void>;
  /** Read around what cannot be read of a chunk, spending so many seconds. */
  rescue(number: number, seconds: number): Promise<void>;
  /** the easy reading is over; so many chunks are left */
  onRescue(chunks: number): void;
  now?: () => number;
}

export interface Passes {
  /** A medium error met this chunk. */
  failed(number: number): void;
  /** This chunk was read. */
  succeeded(number: number): void;
  run(numbers: readonly number[]): Promise<void>;
}

/** on one chunk: a sector that a drive gives up on costs it 1 to 30 s */
const CHUNK_SECONDS = 60;
/** on all of them: an evening, not days */
const TOTAL_SECONDS = 4 * 3600;
/** failures in a row before reading skips ahead, and how far it skips at most, in chunks */
const PATIENCE = 2;
const LONGEST_SKIP = 1024;

/**
 * Read a disk that fails in places: first everything that reads easily, with a growing skip ahead where failures
 * come in a row; then what was skipped, from its end; then around the bad sectors of each chunk that failed, while the
 * time lasts. So that a dying disk has given its data before it is asked for the worst.
 */
export const readInPasses = (reader: PassReader): Passes => {
  const { now = () => performance.now() } = reader;
  const bad = new Set<number>();
  let inRow = 0;
  let skipTo = 0;

  const failed = (number: number): void => {
    bad.add(number);
    inRow += 1;
    if (inRow >= PATIENCE) skipTo = Math.max(skipTo, number + 1 + Math.min(2 ** inRow, LONGEST_SKIP));
  };

  const succeeded = (): void => {
    inRow = 0;
  };

  /** from the end, until one fails; returns what is left of them */
  const readBackwards = async (numbers: readonly number[]): Promise<number[]> => {
    const left = [...numbers];
    for (let number = left.pop(); number !== undefined; number = left.pop()) {
      await reader.start(number);
      await reader.drain();
      if (bad.has(number)) return left;
    }
    return left;
  };

  const run = async (numbers: readonly number[]): Promise<void> => {
    const skipped: number[][] = [];
    let open: number[] | undefined;
    for (const number of numbers) {
      if (number >= skipTo) {
        open = undefined;
        await reader.start(number);
      } else if (open) open.push(number);
      else {
        open = [number];
        skipped.push(open);
      }
    }
    await reader.drain();
    if (bad.size === 0) return;
    reader.onRescue(bad.size + skipped.flat().length);
    const left: number[] = [];
    for (const run of skipped) left.push(...(await readBackwards(run)));
    const until = now() + TOTAL_SECONDS * 1000;
    // those that a skip left out lie deepest in what is broken: last
    for (const number of [...[...bad].toSorted((a, b) => a - b), ...left]) {
      const seconds = Math.max(0, Math.min(CHUNK_SECONDS, (until - now()) / 1000));
      await reader.rescue(number, seconds);
    }
  };

  return { failed, succeeded, run };
};
