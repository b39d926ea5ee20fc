import { z } from 'zod';
import { isImagingError } from '../errors.ts';
import type { run } from '../process/run.ts';
import type { Health } from '../protocol/index.ts';

export interface DriveFacts extends Health {
  /** revision of the drive's own software */
  firmware: string | null;
}

const unknown: DriveFacts = { passed: null, powerOnHours: null, defects: null, firmware: null };

/** smartctl's exit code is a bit mask (smartctl(8)): only the first two bits mean that it could not ask. */
const ANSWERED = Array.from({ length: 256 }, (_, code) => code).filter((code) => (code & 3) === 0);

/** What the drive says of itself by SMART; what it does not say is null, and asking never fails a wipe. */
export const readDriveFacts = async (path: string, runTool: typeof run): Promise<DriveFacts> => {
  try {
    const args = ['--json', '--info', '--health', '--attributes', path];
    const { stdout } = await runTool('smartctl', args, { okExitCodes: ANSWERED });
    return parseSmartctl(stdout);
  } catch (error) {
    if (!isImagingError(error)) throw error;
    return unknown;
  }
};

const smartSchema = z.object({
  firmware_version: z.string().optional(),
  smart_status: z.object({ passed: z.boolean() }).optional(),
  power_on_time: z.object({ hours: z.number() }).optional(),
  ata_smart_attributes: z
    .object({ table: z.array(z.object({ id: z.number(), raw: z.object({ value: z.number() }) })) })
    .optional(),
  nvme_smart_health_information_log: z.object({ media_errors: z.number().optional() }).optional(),
  scsi_grown_defect_list: z.number().optional(),
});

/** ATA's attribute of reallocated sectors */
const REALLOCATED = 5;

/** `smartctl --json` (7.3); garbage is a drive that says nothing. */
export const parseSmartctl = (text: string): DriveFacts => {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return unknown;
  }
  const parsed = smartSchema.safeParse(json);
  if (!parsed.success) return unknown;
  const { data } = parsed;
  const reallocated = data.ata_smart_attributes?.table.find(({ id }) => id === REALLOCATED)?.raw.value;
  return {
    passed: data.smart_status?.passed ?? null,
    powerOnHours: data.power_on_time?.hours ?? null,
    defects:
      reallocated ??
      data.nvme_smart_health_information_log?.media_errors ??
      data.scsi_grown_defect_list ??
      null,
    firmware: data.firmware_version ?? null,
  };
};
