import { readSmart, type SmartFacts } from '../disk/smart.ts';
import type { run } from '../process/run.ts';
import type { Health } from '../protocol/index.ts';

export interface DriveFacts extends Health {
  /** revision of the drive's own software */
  firmware: string | null;
}

/** What the drive says of itself by SMART; what it does not say is null, and asking never fails a wipe. */
export const readDriveFacts = async (path: string, runTool: typeof run): Promise<DriveFacts> =>
  driveFactsOf(await readSmart(path, runTool));

/** What a certificate says of a drive's health. */
export const driveFactsOf = (smart: SmartFacts): DriveFacts => {
  const { passed, powerOnHours, reallocated, mediaErrors, grownDefects, firmware } = smart;
  return { passed, powerOnHours, defects: reallocated ?? mediaErrors ?? grownDefects, firmware };
};
