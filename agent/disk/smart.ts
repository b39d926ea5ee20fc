import { z } from 'zod';
import { isImagingError } from '../errors.ts';
import type { run } from '../process/run.ts';
import type { Smart } from '../protocol/index.ts';

export interface SmartFacts extends Smart {
  /** revision of the drive's own software */
  firmware: string | null;
}

/** smartctl's exit code is a bit mask (smartctl(8)) about the drive, and its JSON says what went wrong: all are answers. */
const ANSWERED = Array.from({ length: 256 }, (_, code) => code);

/** What the drive says of itself by SMART; what it does not say is null, and asking never fails. Read-only. */
export const readSmart = async (path: string, runTool: typeof run): Promise<SmartFacts> => {
  try {
    const args = ['--json', '--info', '--health', '--attributes', path];
    const { stdout } = await runTool('smartctl', args, { okExitCodes: ANSWERED });
    return parseSmartctl(stdout);
  } catch (error) {
    if (!isImagingError(error)) throw error;
    return silent(error.message);
  }
};

/** A drive that says nothing, and why. */
const silent = (why: string): SmartFacts => ({
  unavailable: why.slice(0, 300),
  ...{ passed: null, powerOnHours: null, celsius: null, firmware: null },
  ...{ reallocated: null, pending: null, offlineUncorrectable: null, crcErrors: null },
  ...{ mediaErrors: null, spare: null, spareThreshold: null, percentageUsed: null, criticalWarning: null },
  ...{ grownDefects: null, uncorrectedErrors: null },
});

const countSchema = z.number().int().nonnegative();
/** one odd field is a field that is not there, not a drive that says nothing */
const optional = <T extends z.ZodType>(schema: T) => schema.optional().catch(undefined);
const uncorrectedSchema = optional(z.object({ total_uncorrected_errors: optional(countSchema) }));

const attributeSchema = z.object({
  id: z.number(),
  raw: z.object({ value: z.number(), string: z.string().default('') }),
});

/** as smartctl 7.3 and 7.4 print it */
const smartctlSchema = z.object({
  smartctl: optional(z.object({ messages: z.array(z.object({ string: z.string() })).default([]) })),
  firmware_version: optional(z.string()),
  smart_status: optional(z.object({ passed: z.boolean() })),
  power_on_time: optional(z.object({ hours: countSchema })),
  temperature: optional(z.object({ current: z.number() })),
  ata_smart_attributes: optional(z.object({ table: z.array(attributeSchema) })),
  nvme_smart_health_information_log: optional(
    z.object({
      critical_warning: optional(countSchema),
      available_spare: optional(z.number()),
      available_spare_threshold: optional(z.number()),
      percentage_used: optional(z.number()),
      media_errors: optional(countSchema),
    }),
  ),
  scsi_grown_defect_list: optional(countSchema),
  scsi_error_counter_log: optional(
    z.object({ read: uncorrectedSchema, write: uncorrectedSchema, verify: uncorrectedSchema }),
  ),
});
type Smartctl = z.infer<typeof smartctlSchema>;

/** `smartctl --json`; garbage is a drive that says nothing. Pure. */
export const parseSmartctl = (text: string): SmartFacts => {
  let data: Smartctl;
  try {
    data = smartctlSchema.parse(JSON.parse(text));
  } catch {
    return silent('smartctl printed no JSON');
  }
  const nvme = data.nvme_smart_health_information_log;
  const facts: SmartFacts = {
    unavailable: null,
    passed: data.smart_status?.passed ?? null,
    powerOnHours: data.power_on_time?.hours ?? null,
    celsius: data.temperature?.current ?? null,
    firmware: data.firmware_version ?? null,
    reallocated: attribute(data, 5),
    pending: attribute(data, 197),
    offlineUncorrectable: attribute(data, 198),
    crcErrors: attribute(data, 199),
    mediaErrors: nvme?.media_errors ?? null,
    spare: nvme?.available_spare ?? null,
    spareThreshold: nvme?.available_spare_threshold ?? null,
    percentageUsed: nvme?.percentage_used ?? null,
    criticalWarning: nvme?.critical_warning ?? null,
    grownDefects: data.scsi_grown_defect_list ?? null,
    uncorrectedErrors: uncorrected(data),
  };
  const saysAnything =
    facts.passed !== null || data.ata_smart_attributes || nvme || facts.grownDefects !== null;
  if (saysAnything) return facts;
  const words = data.smartctl?.messages.map(({ string }) => string).join(' ') ?? '';
  return { ...facts, unavailable: (words || 'the drive has no SMART').slice(0, 300) };
};

/** Raw values pack several numbers with some vendors; smartctl's own reading of them is the text, which begins with the count. */
const attribute = ({ ata_smart_attributes: attributes }: Smartctl, wanted: number): number | null => {
  const raw = attributes?.table.find(({ id }) => id === wanted)?.raw;
  if (!raw) return null;
  const read = /^\d+/.exec(raw.string)?.[0];
  const count = read === undefined ? raw.value : Number(read);
  return Number.isSafeInteger(count) && count >= 0 ? count : null;
};

const uncorrected = ({ scsi_error_counter_log: log }: Smartctl): number | null => {
  if (!log) return null;
  return [log.read, log.write, log.verify].reduce(
    (sum, one) => sum + (one?.total_uncorrected_errors ?? 0),
    0,
  );
};
