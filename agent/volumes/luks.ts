import { z } from 'zod';
import { mappingName } from '../disk/device-mapper.ts';
import { ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';

/** The clear side of a LUKS volume. Disposing closes it. */
export interface OpenedLuks extends AsyncDisposable {
  path: string;
  /** where the ciphertext begins, bytes; before it lie header and keyslots */
  dataOffset: number;
  /** bytes */
  size: number;
  /** encryption is by whole sectors of this many bytes */
  sectorSize: number;
}

const segmentSchema = z.looseObject({
  type: z.string(),
  integrity: z.unknown().optional(),
  flags: z.array(z.string()).optional(),
});
const metadataSchema = z.looseObject({
  segments: z.record(z.string(), segmentSchema),
  config: z.looseObject({
    requirements: z.looseObject({ mandatory: z.array(z.string()).optional() }).optional(),
  }),
});

/**
 * Why the used blocks of this LUKS volume could not be told even with its key; null where they can.
 * Source: LUKS2 On-Disk Format Specification 1.1.2, sections 3.3 to 3.5.
 *
 * @throws ImagingError TOOL_FAILED: cryptsetup finds its header damaged
 */
export const whyOpaque = async (device: string, signal: AbortSignal): Promise<string | null> => {
  const { stdout } = await run('cryptsetup', ['luksDump', device], { signal });
  if (/^Version:\s*1\s*$/m.test(stdout)) {
    // an offset of 0 belongs to a header that was kept apart
    return /^Payload offset:\s*[1-9]\d*\s*$/m.test(stdout) ? null : 'its header belongs to another device';
  }
  const dump = await run('cryptsetup', ['luksDump', '--dump-json-metadata', device], { signal });
  return judgeLuks2(dump.stdout);
};

/** Pure part of the above for LUKS 2. @throws ImagingError TOOL_FAILED */
export const judgeLuks2 = (json: string): string | null => {
  let metadata: z.infer<typeof metadataSchema>;
  try {
    metadata = metadataSchema.parse(JSON.parse(json));
  } catch (cause) {
    throw new ImagingError('TOOL_FAILED', 'Cannot read the LUKS header: its metadata is malformed', {
      cause,
    });
  }
  const required = metadata.config.requirements?.mandatory ?? [];
  if (required.some((name) => name.includes('reencrypt'))) return 'it is being encrypted anew';
  if (required.length > 0) return `it needs ${required.join(', ')}`.slice(0, 200);
  const segments = Object.values(metadata.segments);
  if (segments.length !== 1) return `it has ${segments.length} segments`;
  const [segment] = segments;
  if (segment?.type !== 'crypt') return `its segment is of type ${segment?.type}`.slice(0, 200);
  if (segment.integrity !== undefined) return 'it is protected by integrity tags';
  return null;
};

export interface OpenOptions {
  writable: boolean;
  signal: AbortSignal;
}

/** cryptsetup(8), "RETURN CODES" */
const WRONG_KEY = 2;

/**
 * Open a LUKS volume with the first of these keys that fits. A key goes through standard input, whole: it is
 * on no command line and in no file.
 *
 * @throws ImagingError UNLOCK_FAILED (none fits), TOOL_FAILED
 */
export const openLuks = async (
  device: string,
  keys: readonly string[],
  { writable, signal }: OpenOptions,
): Promise<OpenedLuks> => {
  const name = mappingName();
  const args = [
    'open',
    '--type',
    'luks',
    '--batch-mode',
    '--key-file',
    '-',
    ...(writable ? [] : ['--readonly']),
  ];
  await using opening = new AsyncDisposableStack();
  // 4: not there; a cancelled open may have come as far as the mapping
  opening.defer(async () => void (await run('cryptsetup', ['close', name], { okExitCodes: [0, 4] })));
  for (const key of keys) {
    const { exitCode } = await run('cryptsetup', [...args, device, name], {
      input: key,
      signal,
      // key derivation is slow by design, and slower on a machine weaker than the one that chose its cost
      timeoutMs: 10 * 60_000,
      okExitCodes: [0, WRONG_KEY],
    });
    if (exitCode !== 0) continue;
    const { stdout } = await run('dmsetup', ['table', name], { signal });
    const table = parseCryptTable(stdout);
    const opened = opening.move();
    return { path: `/dev/mapper/${name}`, ...table, [Symbol.asyncDispose]: () => opened.disposeAsync() };
  }
  throw new ImagingError('UNLOCK_FAILED', `Cannot unlock ${device}: none of the task's keys opens it`);
};

/**
 * `dmsetup table` of a crypt target: start, length, "crypt", cipher, key, IV offset, device, offset, options
 * (Documentation/admin-guide/device-mapper/dm-crypt.rst). Sectors of 512 bytes. The kernel's word on where
 * the data is, for LUKS 1 and 2 alike.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const parseCryptTable = (line: string): Omit<OpenedLuks, 'path' | typeof Symbol.asyncDispose> => {
  const match = /^0 (\d+) crypt \S+ \S+ \d+ \S+ (\d+)((?: \S+)*)\s*$/.exec(line);
  const options = match?.[3] ?? '';
  if (!match || options.includes('integrity:')) {
    throw new ImagingError(
      'TOOL_FAILED',
      'Cannot use the opened volume: its mapping is not a plain crypt target',
    );
  }
  return {
    size: Number(match[1]) * 512,
    dataOffset: Number(match[2]) * 512,
    sectorSize: Number(/ sector_size:(\d+)/.exec(options)?.[1] ?? 512),
  };
};
