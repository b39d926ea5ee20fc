import type { Extent } from './extent.ts';

/** Reads so many bytes at an offset; throws what the device says. */
export type PieceReader = (offset: number, length: number) => void;

export interface AroundOptions {
  /** smallest piece that the device reads on its own: its sector, bytes */
  step: number;
  read: PieceReader;
  /** one read of a bad sector takes seconds: after so many nothing more is tried */
  seconds: number;
  /** further tries for each bad sector, when everything else is read; default 1 */
  retries?: number;
  now?: () => number;
}

export interface Around {
  /** sectors that were tried one by one and could not be read */
  bad: Extent[];
  /** what the time did not suffice for */
  untried: Extent[];
}

/** as ddrescue's first pass: larger than a sector, small enough to lose little to one */
const BLOCK = 65536;
/** what the kernel answers where the medium fails: blk_errors[] in Linux 6.12's block/blk-core.c */
const MEDIUM_ERRORS = new Set(['EIO', 'ENODATA', 'EREMOTEIO', 'EILSEQ', 'ETIMEDOUT']);

/** Whether a failed read speaks of a place on the medium, and not of the whole device or of the caller. */
export const isMediumError = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && MEDIUM_ERRORS.has(String(error.code));

/**
 * Read what can be read of `spans` (on multiples of `step`), the easy part first: blocks with a growing skip behind each
 * failure, then what was skipped from its end, then the edges of what failed, then its inside sector by sector.
 * So a sick disk gives most of its data before it is asked for the worst (GNU ddrescue's order of passes).
 *
 * @throws whatever `read` throws that is no medium error
 */
export const readAround = (spans: readonly Extent[], options: AroundOptions): Around => {
  const { step, seconds, retries = 1, now = () => performance.now() } = options;
  const deadline = now() + seconds * 1000;
  const untried: Extent[] = [];
  /** undefined: no time left, nothing was tried */
  const attempt = (piece: Extent): boolean | undefined => {
    if (now() >= deadline) {
      untried.push(piece);
      return undefined;
    }
    try {
      options.read(piece.offset, piece.length);
      return true;
    } catch (error) {
      if (!isMediumError(error)) throw error;
      return false;
    }
  };

  const block = Math.max(BLOCK, step);
  const failed: Extent[] = [];
  const skipped: Extent[] = [];
  for (const span of spans) {
    let skip = 0;
    for (let piece: Extent | undefined = head(span, block); piece; ) {
      const isRead = attempt(piece);
      let rest = behind(span, piece);
      if (isRead === false) {
        failed.push(piece);
        skip = skip === 0 ? block : skip * 2;
        const over = rest && head(rest, skip);
        if (over) {
          skipped.push(over);
          rest = behind(span, over);
        }
      } else if (isRead) skip = 0;
      piece = rest && head(rest, block);
    }
  }
  for (const span of skipped) {
    let left: Extent | undefined = span;
    while (left) {
      const piece = tail(left, block);
      const isRead = attempt(piece);
      if (isRead === false) {
        failed.push(left);
        break;
      }
      left = before(left, piece);
    }
  }
  let bad: Extent[] = [];
  for (const span of failed.toSorted((a, b) => a.offset - b.offset)) {
    const { ends, inside } = trim(span, step, attempt);
    bad.push(...ends, ...(inside ? scrape(inside, step, attempt) : []));
  }
  for (let turn = 0; turn < retries; turn += 1) {
    // out of time: known to be bad already, so not `untried`
    bad = bad.filter((piece) => now() >= deadline || attempt(piece) === false);
  }
  return { bad: joined(bad), untried: joined(untried) };
};

type Attempt = (piece: Extent) => boolean | undefined;

/** Take off both ends of a failed span what can be read. `ends` are its first and its last bad sector. */
const trim = (span: Extent, step: number, attempt: Attempt): { ends: Extent[]; inside?: Extent } => {
  let left: Extent | undefined = span;
  const ends: Extent[] = [];
  for (const end of [head, tail]) {
    while (left) {
      const piece: Extent = end(left, step);
      const isRead = attempt(piece);
      left = end === head ? behind(left, piece) : before(left, piece);
      if (isRead === false) {
        ends.push(piece);
        break;
      }
    }
  }
  return left ? { ends, inside: left } : { ends };
};

const scrape = (span: Extent, step: number, attempt: Attempt): Extent[] => {
  const bad: Extent[] = [];
  for (let left: Extent | undefined = span; left; ) {
    const piece = head(left, step);
    if (attempt(piece) === false) bad.push(piece);
    left = behind(left, piece);
  }
  return bad;
};

const head = ({ offset, length }: Extent, size: number): Extent => ({
  offset,
  length: Math.min(size, length),
});

const tail = ({ offset, length }: Extent, size: number): Extent => {
  const part = Math.min(size, length);
  return { offset: offset + length - part, length: part };
};

const behind = (span: Extent, piece: Extent): Extent | undefined => {
  const offset = piece.offset + piece.length;
  const length = span.offset + span.length - offset;
  return length > 0 ? { offset, length } : undefined;
};

const before = (span: Extent, piece: Extent): Extent | undefined => {
  const length = piece.offset - span.offset;
  return length > 0 ? { offset: span.offset, length } : undefined;
};

/** Sorted, touching ones as one. */
export const joined = (pieces: readonly Extent[]): Extent[] => {
  const all: Extent[] = [];
  for (const { offset, length } of pieces.toSorted((a, b) => a.offset - b.offset)) {
    const last = all.at(-1);
    if (last && offset <= last.offset + last.length) {
      last.length = Math.max(last.length, offset + length - last.offset);
    } else all.push({ offset, length });
  }
  return all;
};
