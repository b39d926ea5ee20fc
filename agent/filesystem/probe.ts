import { findSignatures } from '../disk/signatures.ts';
import { ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';

export interface ProbeResult {
  /** libblkid's name, empty for nothing recognised */
  type: string;
  uuid: string;
  label: string;
  /** several signatures on one device: nobody can say which is meant, so it is kept raw */
  ambiguous: boolean;
}

const NOTHING = 2;
const AMBIVALENT = 8;

/**
 * What lies on a device, by its signatures, read from the device and not from a cache. Read-only.
 *
 * @throws ImagingError TOOL_FAILED, TASK_CANCELLED
 */
export const probe = async (device: string, options: { signal?: AbortSignal } = {}): Promise<ProbeResult> => {
  const { stdout, exitCode } = await run('blkid', ['--probe', '--output', 'udev', device], {
    ...options,
    okExitCodes: [0, NOTHING, AMBIVALENT],
  });
  const found = parseBlkid(stdout, exitCode);
  if (found.type !== '' || found.ambiguous) return found;
  // util-linux 2.41 answers several signatures like none: exit code 2 and no output
  const types = new Set((await findSignatures(device, options)).map((signature) => signature.type));
  return { ...found, ambiguous: types.size > 1 };
};

/**
 * `blkid -p -o udev`: the only output whose escapes (\xNN of UTF-8 bytes) give back the exact label in
 * the C locale.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const parseBlkid = (stdout: string, exitCode: number): ProbeResult => {
  const values = new Map<string, string>();
  for (const line of stdout.split('\n')) {
    const at = line.indexOf('=');
    if (at > 0) values.set(line.slice(0, at), line.slice(at + 1));
  }
  const type = values.get('ID_FS_TYPE') ?? '';
  if (!/^[\w.+-]*$/.test(type)) {
    throw new ImagingError('TOOL_FAILED', 'Cannot probe: blkid printed something unexpected');
  }
  return {
    type,
    uuid: decodeEscapes(values.get('ID_FS_UUID_ENC') ?? ''),
    label: decodeEscapes(values.get('ID_FS_LABEL_ENC') ?? ''),
    ambiguous: exitCode === AMBIVALENT || values.has('ID_FS_AMBIVALENT'),
  };
};

const decodeEscapes = (text: string): string => {
  const parts = text.split(/\\x([0-9a-f]{2})/i);
  // split with one group: plain, hex, plain, hex …
  const bytes = parts.map((part, index) => Buffer.from(part, index % 2 === 1 ? 'hex' : 'utf8'));
  return Buffer.concat(bytes).toString('utf8').replaceAll('\0', '');
};
