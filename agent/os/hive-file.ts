import type { FileHandle } from 'node:fs/promises';
import { hasCode, ImagingError } from '../errors.ts';
import { type ExpectedFile, MAX_FILE, sha256Of } from './change.ts';
import { BINS, binsProblem, isBaseBlock, isClean } from './hive-layout.ts';
import { replayHive } from './hive-log.ts';
import { openInside, readUpTo, type Tree } from './tree.ts';

/** A registry hive in a deployed Windows, to be changed. */
export interface HiveFile extends AsyncDisposable {
  /** as Windows' next start would have it: closed, with what waited in its logs */
  readonly bytes: Buffer;
  /** something waited in its logs */
  readonly replayed: boolean;
  /**
   * Write another content where the hive lies, so that its access rights stay, and see that it is there. Resolves with
   * what must be found through another mount.
   *
   * @throws ImagingError TOOL_FAILED (that content is no hive: nothing is written), READ_BACK_MISMATCH
   */
  store(bytes: Buffer): Promise<ExpectedFile[]>;
}

const LOGS = ['.LOG', '.LOG1', '.LOG2'];

/** What a person can do about a hive that cannot be taken as it is: to end a sentence with. */
export const CLOSE_WINDOWS =
  'start the captured Windows, shut it down with shutdown /s /f /t 0 and capture it again';

/**
 * Open a hive; null where there is none. Nothing is written before `store`.
 *
 * @throws ImagingError OPTION_REFUSED: it was not closed, and its logs do not bring it to order; it is too large
 */
export const openHiveFile = async (tree: Tree, path: string): Promise<HiveFile | null> => {
  await using opening = new AsyncDisposableStack();
  const file = await openInside(tree, path, { write: true });
  if (!file) return null;
  opening.use(file);
  const { size } = await file.handle.stat();
  if (size > MAX_FILE) throw refused(path, `it has ${size} bytes`);
  const present = await readUpTo(file.handle, MAX_FILE);
  const bytes = await settled(tree, path, present);
  const replayed = bytes !== present;
  const opened = opening.move();
  return {
    bytes,
    replayed,
    store: async (wanted) => {
      const problem = isClean(wanted) ? binsProblem(wanted) : 'it is not closed';
      if (problem !== null)
        throw new ImagingError('TOOL_FAILED', `Cannot change ${path}: as changed, ${problem}`);
      // whatever happens in between: before its first block is written the logs say it all again, then it is closed
      if (replayed) await writeDifferences(file.handle, present, bytes);
      const emptied = replayed ? await emptyLogs(tree, path) : [];
      await writeDifferences(file.handle, bytes, wanted);
      const found = await readUpTo(file.handle, MAX_FILE);
      if (!found.equals(wanted)) {
        throw new ImagingError('READ_BACK_MISMATCH', `Cannot change ${path}: it is not what was written`);
      }
      return [{ path, sha256: sha256Of(wanted) }, ...emptied];
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
};

const settled = async (tree: Tree, path: string, present: Buffer): Promise<Buffer> => {
  if (!isBaseBlock(present) || isClean(present)) return present;
  const logs: Buffer[] = [];
  for (const name of LOGS) {
    await using log = await openInside(tree, path + name);
    if (!log) continue;
    const { size } = await log.handle.stat();
    if (size > MAX_FILE) throw refused(path, `its log has ${size} bytes`);
    logs.push(await readUpTo(log.handle, MAX_FILE));
  }
  try {
    return replayHive(present, logs);
  } catch (error) {
    if (!hasCode(error, 'TOOL_FAILED') || !(error instanceof Error)) throw error;
    const reason = error.message.replace(/^.*?: /, '');
    throw refused(path, `it was not closed, and its log is of no help (${reason}); ${CLOSE_WINDOWS}`);
  }
};

const refused = (path: string, reason: string): ImagingError =>
  new ImagingError('OPTION_REFUSED', `Cannot change ${path}: ${reason}`, { details: { path } });

/** Left empty, as where Windows has just made them: their entries are in the hive. */
const emptyLogs = async (tree: Tree, path: string): Promise<ExpectedFile[]> => {
  const emptied: ExpectedFile[] = [];
  for (const name of LOGS) {
    await using log = await openInside(tree, path + name, { write: true });
    if (!log) continue;
    await log.handle.truncate(0);
    await log.handle.sync();
    emptied.push({ path: path + name, sha256: sha256Of(Buffer.alloc(0)) });
  }
  return emptied;
};

/** Most of a hive stays: only pages that differ are written, the first one, which says that it is closed, last. */
const writeDifferences = async (file: FileHandle, old: Buffer, bytes: Buffer): Promise<void> => {
  for (let start = BINS; start < bytes.length; start += BINS) await writePage(file, old, bytes, start);
  await file.sync();
  await writePage(file, old, bytes, 0);
  if (bytes.length !== old.length) await file.truncate(bytes.length);
  await file.sync();
};

const writePage = async (file: FileHandle, old: Buffer, bytes: Buffer, start: number): Promise<void> => {
  const page = bytes.subarray(start, start + BINS);
  if (page.equals(old.subarray(start, start + BINS))) return;
  for (let done = 0; done < page.length; ) {
    done += (await file.write(page, done, page.length - done, start + done)).bytesWritten;
  }
};
