import { z } from 'zod';
import type { Disk } from '../../disk/disk.ts';
import { ImagingError } from '../../errors.ts';
import {
  noOffer,
  type PurgeMethod,
  type PurgeOffer,
  type PurgeTools,
  SANITIZE_LEVEL,
  untilIdle,
} from './method.ts';

const HOUR_MS = 3600_000;

/**
 * NVMe: sanitize by key, block erase or overwrite, on the controller and so on all of its namespaces; else format, which asks
 * the same of one namespace but leaves more to the drive (NVMe base specification 2.0, sections 5.24, 5.14).
 *
 * @throws ImagingError TOOL_FAILED, TOOL_MISSING: the controller does not say what it is
 */
export const offerNvme = async (disk: Disk, tools: PurgeTools): Promise<PurgeOffer> => {
  const controller = /^\/dev\/nvme\d+/.exec(disk.path)?.[0];
  if (!controller) return noOffer(`${disk.path} is not a namespace of an NVMe controller`);
  const facts = await askJson(tools, ['id-ctrl', controller], controllerSchema);
  const { nsid_list: namespaces } = await askJson(tools, ['list-ns', controller, '--all'], namespacesSchema);
  if (namespaces.length > 1) {
    return noOffer(
      `${controller} has ${namespaces.length} namespaces, and its erasure would take all of them: wipe them one by one without purge`,
    );
  }
  const methods: PurgeMethod[] = [
    ...sanitizeActions
      .filter(({ bit }) => (facts.sanicap & bit) !== 0)
      .map(({ name, action }) => sanitize(controller, tools, name, action)),
    ...((facts.oacs & FORMAT_NVM) === 0
      ? []
      : [
          ...((facts.fna & CRYPTO_FORMAT) === 0 ? [] : [format(disk.path, tools, 'nvme-format-crypto', 2)]),
          format(disk.path, tools, 'nvme-format', 1),
        ]),
  ];
  return methods.length > 0
    ? { methods, reasons: [], code: 'PURGE_IMPOSSIBLE' }
    : noOffer('the controller offers neither sanitize nor format');
};

/** SANICAP, OACS and FNA of Identify Controller */
const FORMAT_NVM = 0x2;
const CRYPTO_FORMAT = 0x4;
const sanitizeActions = [
  { name: 'nvme-sanitize-crypto', bit: 1, action: 4 },
  { name: 'nvme-sanitize-block', bit: 2, action: 2 },
  { name: 'nvme-sanitize-overwrite', bit: 4, action: 3 },
] as const;
const EXIT_FAILURE_MODE = 1;

const controllerSchema = z.object({ sanicap: z.number(), oacs: z.number(), fna: z.number() });
const namespacesSchema = z.object({ nsid_list: z.array(z.object({ nsid: z.number() })) });

const sanitize = (controller: string, tools: PurgeTools, name: string, action: number): PurgeMethod => {
  const look = () => sanitizeState(controller, tools);
  return {
    name,
    level: SANITIZE_LEVEL,
    settle: async () => {
      if ((await untilIdle(tools, look)).status === FAILED) await leaveFailure(controller, tools);
    },
    status: async () => (await look()).words,
    erase: async () => {
      const overwrite = name === 'nvme-sanitize-overwrite' ? ['--owpass=1', '--ovrpat=0'] : [];
      await tools.run('nvme', ['sanitize', controller, `--sanact=${action}`, ...overwrite]);
      const end = await untilIdle(tools, look);
      if (end.status === DONE || end.status === DONE_WITHOUT_DEALLOCATE) return;
      if (end.status === FAILED) await leaveFailure(controller, tools);
      throw new ImagingError('PURGE_FAILED', `Cannot erase ${controller}: the drive says ${end.words}`);
    },
  };
};

/** A controller whose sanitize failed does nothing else until it is told to leave that state. */
const leaveFailure = (controller: string, tools: PurgeTools): Promise<unknown> =>
  tools.run('nvme', ['sanitize', controller, `--sanact=${EXIT_FAILURE_MODE}`], { okExitCodes: [0, 1] });

/** SSTAT, bits 2:0 */
const DONE = 1;
const AT_WORK = 2;
const FAILED = 3;
const DONE_WITHOUT_DEALLOCATE = 4;

const sanitizeLogSchema = z.object({
  sprog: z.number(),
  // nvme-cli prints "(1) Most Recent Sanitize Command Completed Successfully." from 2.0, a number before
  sstat: z.union([z.number(), z.object({ status: z.union([z.number(), z.string()]) }).loose()]),
});

const sanitizeState = async (controller: string, tools: PurgeTools) => {
  // nested under the controller's name since nvme-cli 2.0
  const schema = z.union([sanitizeLogSchema, z.record(z.string(), sanitizeLogSchema)]);
  const log = await askJson(tools, ['sanitize-log', controller], schema);
  const { sprog, sstat } = isLog(log) ? log : (Object.values(log)[0] ?? { sprog: 0, sstat: 0 });
  const words = typeof sstat === 'number' ? String(sstat) : String(sstat.status);
  const status = Number(/\d+/.exec(words)?.[0] ?? -1) & 7;
  return { status, words, share: status === AT_WORK ? sprog / 65536 : null };
};

const isLog = (log: object): log is z.infer<typeof sanitizeLogSchema> => 'sprog' in log && 'sstat' in log;

const format = (namespace: string, tools: PurgeTools, name: string, ses: number): PurgeMethod => ({
  name,
  level:
    'NVMe Format: Purge by NIST SP 800-88 r1; IEEE 2883-2022 asks for Sanitize, which this drive does not have or refused',
  settle: async () => undefined,
  status: async () => 'format keeps no log; its own answer and the read-back are all there is',
  erase: async () => {
    const args = ['format', namespace, `--ses=${ses}`, '--force', `--timeout=${12 * HOUR_MS}`];
    await tools.run('nvme', args, { timeoutMs: 12 * HOUR_MS });
  },
});

/** @throws ImagingError TOOL_FAILED: nvme printed something else */
const askJson = async <S extends z.ZodType>(
  tools: PurgeTools,
  args: readonly string[],
  schema: S,
): Promise<z.output<S>> => {
  const { stdout } = await tools.run('nvme', [...args, '--output-format=json']);
  try {
    return schema.parse(JSON.parse(stdout));
  } catch (cause) {
    throw new ImagingError(
      'TOOL_FAILED',
      `Cannot understand nvme ${args[0]}: ${stdout.trim().slice(0, 200)}`,
      { cause },
    );
  }
};
