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

/** SERVICE ACTION of SANITIZE (SBC-4, 5.30) by its option of sg_sanitize */
const ways = [
  { option: 'crypto', action: '0x3' },
  { option: 'block', action: '0x2' },
  { option: 'overwrite', action: '0x1' },
] as const;

/**
 * SCSI: sanitize by key, block erase or overwrite, as far as the drive reports to support them.
 *
 * @throws ImagingError TOOL_MISSING
 */
export const offerScsi = async (disk: Disk, tools: PurgeTools): Promise<PurgeOffer> => {
  const methods: PurgeMethod[] = [];
  for (const { option, action } of ways) {
    if (await supports(disk.path, tools, action)) methods.push(sanitize(disk.path, tools, option));
  }
  return methods.length > 0
    ? { methods, reasons: [], code: 'PURGE_IMPOSSIBLE' }
    : noOffer(`${disk.path} does not report to support SANITIZE`);
};

/** REPORT SUPPORTED OPERATION CODES (SPC-5, 6.34); a drive that does not answer it is not asked for more. */
const supports = async (path: string, tools: PurgeTools, action: string): Promise<boolean> => {
  const { stdout, exitCode } = await tools.run('sg_opcodes', [`--opcode=0x48,${action}`, path], {
    okExitCodes: anyCode,
  });
  return (
    exitCode === 0 &&
    /command is supported|\bsupported \[conforming/i.test(stdout) &&
    !/not supported/i.test(stdout)
  );
};

/** sg3_utils says with its exit code what the drive's sense data was (sg3_utils(8), EXIT STATUS): an answer, not a failure */
const anyCode = Array.from({ length: 100 }, (_, code) => code);

const sanitize = (path: string, tools: PurgeTools, option: (typeof ways)[number]['option']): PurgeMethod => {
  const look = () => senseOf(path, tools);
  return {
    name: `scsi-sanitize-${option}`,
    level: SANITIZE_LEVEL,
    settle: async () => {
      await untilIdle(tools, look);
    },
    status: async () => (await look()).words,
    erase: async () => {
      const pattern = option === 'overwrite' ? ['--zero'] : [];
      await tools.run('sg_sanitize', ['--quick', '--early', `--${option}`, ...pattern, path]);
      const end = await untilIdle(tools, look);
      if (end.done) return;
      throw new ImagingError('PURGE_FAILED', `Cannot erase ${path}: the drive says ${end.words}`);
    },
  };
};

/** REQUEST SENSE: while a drive sanitizes itself it says so, and how far it is; SANITIZE COMMAND FAILED (31h/03h) stays until it is done again. */
const senseOf = async (path: string, tools: PurgeTools) => {
  const { stdout: text } = await tools.run('sg_requests', [path], { okExitCodes: anyCode });
  const atWork = /sanitize in progress/i.test(text);
  const { stdout } = await tools.run('sg_requests', ['--progress', path], { okExitCodes: anyCode });
  const percent = Number(/Progress indication:\s*([\d.]+)%/.exec(stdout)?.[1] ?? 0);
  return {
    // a failed sanitize is "Medium Error, Sanitize command failed", and no answer is no end either
    done: /Sense key: No Sense/i.test(text),
    words: text.replace(/\s+/g, ' ').trim() || 'no sense',
    share: atWork ? percent / 100 : null,
  };
};
