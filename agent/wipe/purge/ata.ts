import type { Disk } from '../../disk/disk.ts';
import { ImagingError, isImagingError } from '../../errors.ts';
import {
  noOffer,
  type PurgeMethod,
  type PurgeOffer,
  type PurgeTools,
  SANITIZE_LEVEL,
  untilIdle,
} from './method.ts';

/** Known, so that whoever finds a drive that lost power in mid-erase can unlock it; no secret. */
export const ATA_PASSWORD = 'fog-wipe';
const HOUR_MS = 3600_000;
const SURE = '--yes-i-know-what-i-am-doing';

/**
 * ATA: sanitize by key, block erase or overwrite, which needs no password and which freezing the security commands does not stop;
 * else the enhanced security erase (ACS-3, 4.17 and 4.18). A drive that an earlier attempt of ours left locked is unlocked.
 *
 * @throws ImagingError TOOL_FAILED, TOOL_MISSING: the drive does not say what it is
 */
export const offerAta = async (disk: Disk, tools: PurgeTools): Promise<PurgeOffer> => {
  const { path } = disk;
  let facts = await identify(path, tools);
  if (facts.security?.locked || facts.security?.enabled) {
    await unlockOurs(path, tools);
    facts = await identify(path, tools);
  }
  if (facts.security?.locked || facts.security?.enabled) {
    const what = facts.security.locked ? 'is locked with' : 'has';
    return noOffer(
      `${path} ${what} a password that is not ours: remove it in the firmware's setup`,
      'DISK_LOCKED',
    );
  }
  const state = facts.sanitize.length > 0 ? await sanitizeState(path, tools) : null;
  const reasons: string[] = [];
  const methods: PurgeMethod[] = [];
  if (state?.frozen) reasons.push('the sanitize commands are frozen');
  else methods.push(...facts.sanitize.map((way) => sanitize(path, tools, way)));
  if (!facts.security?.enhanced) reasons.push('no enhanced security erase');
  else if (facts.security.frozen) reasons.push('the security commands are frozen');
  else methods.push(enhancedErase(path, tools));
  if (methods.length > 0) return { methods, reasons, code: 'PURGE_IMPOSSIBLE' };
  if (facts.sanitize.length === 0) reasons.unshift('no sanitize');
  const frozen = state?.frozen || (facts.security?.enhanced && facts.security.frozen);
  const help = frozen ? ': put the machine to sleep and wake it, or plug the drive in when it runs' : '';
  return {
    methods,
    reasons: [`${path}: ${reasons.join(', ')}${help}`],
    code: frozen ? 'DISK_FROZEN' : 'PURGE_IMPOSSIBLE',
  };
};

type SanitizeWay = 'crypto' | 'block' | 'overwrite';

/** The words of `hdparm -I` (9.65): capabilities have a star where enabled, states a "not" where they are not. */
export const parseIdentify = (text: string) => {
  const ways: readonly [SanitizeWay, RegExp][] = [
    ['crypto', /CRYPTO_SCRAMBLE_EXT command/],
    ['block', /BLOCK_ERASE_EXT command/],
    ['overwrite', /OVERWRITE_EXT command/],
  ];
  const hasSanitize = /SANITIZE feature set/.test(text);
  const block = /^Security:\s*\n((?:[ \t]+.*\n?)*)/m.exec(text)?.[1];
  const is = (word: string): boolean => new RegExp(`^\\s*${word}`, 'm').test(block ?? '');
  return {
    sanitize: hasSanitize ? ways.filter(([, word]) => word.test(text)).map(([way]) => way) : [],
    security:
      block === undefined || !is('supported\\s*$')
        ? null
        : {
            enabled: is('enabled'),
            locked: is('locked'),
            frozen: is('frozen'),
            enhanced: is('supported: enhanced erase'),
          },
  };
};

const identify = async (path: string, tools: PurgeTools) =>
  parseIdentify((await tools.run('hdparm', ['-I', path])).stdout);

/** `State: SD2 Sanitize operation In Process`, `Progress: 0x8000 (50%)` (hdparm 9.65). */
const sanitizeState = async (path: string, tools: PurgeTools) => {
  const { stdout, stderr } = await tools.run('hdparm', ['--sanitize-status', path], {
    okExitCodes: [0, 1, 5],
  });
  const text = stdout + stderr;
  const atWork = /SD2 /.test(text);
  const progress = Number(/Progress:\s*(0x[0-9a-f]+)/i.exec(text)?.[1] ?? 0);
  return {
    frozen: /SD1 /.test(text),
    failed: /SD3 |unsuccessful/i.test(text),
    done: /Completed Without Error/i.test(text),
    words: text
      .replace(/^.*:\n|Issuing.*\n/gm, '')
      .replace(/\s+/g, ' ')
      .trim(),
    share: atWork ? progress / 65536 : null,
  };
};

const sanitizeOptions: Record<SanitizeWay, readonly string[]> = {
  crypto: ['--sanitize-crypto-scramble'],
  block: ['--sanitize-block-erase'],
  overwrite: ['--sanitize-overwrite-passes', '1', '--sanitize-overwrite', 'hex:00000000'],
};

const sanitize = (path: string, tools: PurgeTools, way: SanitizeWay): PurgeMethod => ({
  name: `ata-sanitize-${way}`,
  level: SANITIZE_LEVEL,
  settle: async () => {
    await untilIdle(tools, () => sanitizeState(path, tools));
  },
  status: async () => (await sanitizeState(path, tools)).words,
  erase: async () => {
    await tools.run('hdparm', [SURE, ...sanitizeOptions[way], path]);
    const end = await untilIdle(tools, () => sanitizeState(path, tools));
    if (end.done && !end.failed) return;
    throw new ImagingError('PURGE_FAILED', `Cannot erase ${path}: the drive says ${end.words}`);
  },
});

const enhancedErase = (path: string, tools: PurgeTools): PurgeMethod => {
  const words = async (): Promise<string> => {
    const { security } = await identify(path, tools);
    return security ? JSON.stringify(security) : 'the drive no longer has security commands';
  };
  return {
    name: 'ata-enhanced-security-erase',
    level: SANITIZE_LEVEL,
    settle: async () => undefined,
    status: words,
    erase: async () => {
      tools.log(
        `until ${path} is erased its password is ${ATA_PASSWORD}: it unlocks the drive after a power cut`,
      );
      await security(path, tools, 'set-pass');
      if (!(await identify(path, tools)).security?.enabled) {
        throw new ImagingError('PURGE_FAILED', `Cannot erase ${path}: it did not take the password`);
      }
      try {
        await security(path, tools, 'erase-enhanced', 24 * HOUR_MS);
      } catch (error) {
        await unlockOurs(path, tools);
        throw error;
      }
      const after = await identify(path, tools);
      if (!after.security?.enabled && !after.security?.locked) return;
      await unlockOurs(path, tools);
      throw new ImagingError(
        'PURGE_FAILED',
        `Cannot erase ${path}: it still has the password, so it has not erased`,
      );
    },
  };
};

/** A drive on which our password is still set. One with another password stays as it is: the caller looks again. */
const unlockOurs = async (path: string, tools: PurgeTools): Promise<void> => {
  for (const step of ['unlock', 'disable'] as const) {
    try {
      await security(path, tools, step);
    } catch (error) {
      if (!isImagingError(error)) throw error;
      tools.log(`${path}: ${step}: ${error.message}`);
    }
  }
};

const security = (
  path: string,
  tools: PurgeTools,
  what: 'set-pass' | 'unlock' | 'disable' | 'erase-enhanced',
  timeoutMs = 60_000,
) => tools.run('hdparm', ['--user-master', 'u', `--security-${what}`, ATA_PASSWORD, path], { timeoutMs });
