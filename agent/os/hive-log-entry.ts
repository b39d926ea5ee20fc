import { ImagingError } from '../errors.ts';

/** A part of the bins as a log has it. */
export interface DirtyPage {
  /** from the first bin */
  offset: number;
  bytes: Buffer;
}

/** One write to the hive, whole or not at all. */
export interface LogEntry {
  sequence: number;
  /** of the hive, when this was written */
  binsSize: number;
  /** null: as they were */
  flags: number | null;
  pages: DirtyPage[];
}

export const refused = (reason: string): ImagingError =>
  new ImagingError('TOOL_FAILED', `Cannot replay the registry's log: ${reason}`);
