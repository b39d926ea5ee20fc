import { openSession } from '../client/session.ts';
import { createTaskServer } from '../client/task-server.ts';
import { readConfig } from '../config.ts';
import { listDisks } from '../disk/disk.ts';
import { selectDisk } from '../disk/select.ts';
import { ImagingError, toImagingError } from '../errors.ts';
import { createLog } from '../log.ts';
import { readIdentity } from '../machine/identity.ts';
import { imageNameSchema, versionNumberSchema } from '../protocol/index.ts';
import { fetchImage } from '../tasks/deploy-fetch.ts';
import { compareDisk, describeReport } from '../tasks/verify-disk.ts';

export interface VerifyCommandOptions {
  /** `NAME` or `NAME@N` */
  image: string;
  /** serial number or WWN; needed where the machine has several disks */
  disk?: string;
  server?: string;
  json: boolean;
}

/** exit codes: 0 the same, 1 something differs, 2 it could not be found out */
const DIFFERS = 1;
const FAILED = 2;

/**
 * `fog verify NAME[@N]`: what on this machine's disk differs from an image version that this machine was given or has
 * made. Claims nothing and writes nothing.
 */
export const verifyCommand = async (options: VerifyCommandOptions): Promise<void> => {
  const ending = new AbortController();
  process.once('SIGINT', () => ending.abort());
  process.once('SIGTERM', () => ending.abort());
  try {
    const { signal } = ending;
    const wanted = parseImage(options.image);
    const config = await readConfig({
      flags: options.server === undefined ? {} : { server: options.server },
    });
    const log = createLog({ toConsole: (line) => console.error(line) });
    const server = createTaskServer({
      ...config,
      onWait: (error) => log.warn({ err: error }, 'waiting for the server'),
    });
    try {
      const { bootMac } = config;
      const identity = await readIdentity(bootMac === undefined ? {} : { bootMac });
      await openSession({ config, server, identity, log, signal });
      const version = wanted.version ?? (await newest(server.ownVersions(wanted.name, signal), wanted.name));
      const image = await fetchImage(wanted.name, version, { server, config, signal });
      const hint = options.disk === undefined ? undefined : { serial: options.disk };
      const disk = selectDisk(await listDisks({ signal }), hint, 'capture');
      const report = await compareDisk({ disk, image, signal, onProgress: showProgress });
      console.log(options.json ? JSON.stringify(report, null, 2) : describeReport(report));
      if (!report.same) process.exitCode = DIFFERS;
    } finally {
      server.close();
    }
  } catch (thrown) {
    const { code, message } = toImagingError(thrown);
    console.error(`fog: ${message} [${code}]`);
    process.exitCode = FAILED;
  }
};

const parseImage = (text: string): { name: string; version?: number } => {
  const [name, number, ...rest] = text.split('@');
  const parsed = imageNameSchema.safeParse(name);
  const version = versionNumberSchema.safeParse(Number(number));
  if (!parsed.success || rest.length > 0 || (number !== undefined && !version.success)) {
    throw new ImagingError('BAD_REQUEST', `Cannot verify ${text}: name an image as NAME or NAME@N`);
  }
  return { name: parsed.data, ...(version.success ? { version: version.data } : {}) };
};

const newest = async (versions: Promise<number[]>, name: string): Promise<number> => {
  const [version] = await versions;
  if (version !== undefined) return version;
  throw new ImagingError(
    'IMAGE_NOT_FOUND',
    `Cannot verify ${name}: no task of this machine deploys it or has made it (a deploy with dryRun will do)`,
  );
};

const showProgress = (done: number, total: number): void => {
  if (!process.stderr.isTTY) return;
  process.stderr.write(`\r${Math.floor((done / total) * 100)} %${done >= total ? '\n' : ''}`);
};
