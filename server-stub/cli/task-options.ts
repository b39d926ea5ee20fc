import { readFile } from 'node:fs/promises';
import type { Argv } from 'yargs';
import { ImagingError } from '../../agent/errors.ts';
import { surfaceModeSchema, taskTypes } from '../../agent/protocol/index.ts';
import type { ApiOptions } from './command.ts';
import { parseImage } from './image.ts';

/** Which disk is meant, of a host or of a task. */
export const diskOptions = {
  'disk-serial': { type: 'string', describe: 'the disk that is meant: its serial number' },
  'disk-wwn': { type: 'string', describe: 'the disk that is meant: its WWN' },
  'disk-size': { type: 'number', describe: 'the disk that is meant: its exact size in bytes' },
} as const;

interface DiskArguments {
  diskSerial?: string | undefined;
  diskWwn?: string | undefined;
  diskSize?: number | undefined;
}

export const diskOf = ({ diskSerial: serial, diskWwn: wwn, diskSize: size }: DiskArguments) => {
  const disk = defined({ serial, wwn, size });
  return Object.keys(disk).length > 0 ? { disk } : {};
};

/** Options of `task add`; each is a parameter of agent/protocol/task.ts, where it is checked. */
export const taskOptions = (y: Argv<ApiOptions>) =>
  y
    .positional('type', { choices: taskTypes, demandOption: true })
    .positional('host', { type: 'string', demandOption: true, describe: 'id, name or MAC' })
    .option('image', { type: 'string', describe: 'NAME to capture; NAME or NAME@VERSION to deploy' })
    .options(diskOptions)
    .option('disks', {
      type: 'string',
      array: true,
      describe: 'serial numbers of the disks d1, d2 … of an image of several disks',
    })
    .option('after', { choices: ['reboot', 'poweroff', 'stay'] as const, default: 'reboot' as const })
    .option('wait', { type: 'boolean', default: false, describe: 'wait for its end as `task wait` does' })
    .option('verify', {
      choices: ['sample', 'full', 'none'] as const,
      describe: 'deploy, wipe: what to read back',
    })
    .option('dry-run', { type: 'boolean', describe: 'deploy, wipe: plan and show, write nothing' })
    .options(captureOptions)
    .group(Object.keys(captureOptions), 'Capture:')
    .options(deployOptions)
    .group(Object.keys(deployOptions), 'Deploy:')
    .options(wipeOptions)
    .group(Object.keys(wipeOptions), 'Wipe:')
    .options(surfaceOptions)
    .group(Object.keys(surfaceOptions), 'Surface test (also --disk, --all-internal):');

const captureOptions = {
  level: { type: 'number', describe: 'zstd level, 1 to 19' },
  rescue: { type: 'boolean', describe: 'read around bad sectors; the image is marked damaged' },
  raw: { type: 'boolean', describe: 'keep encrypted volumes without a key, every block' },
  'unlock-stdin': { type: 'boolean', describe: 'keys of encrypted volumes from standard input, one a line' },
  'unlock-file': { type: 'string', describe: 'the same from a file' },
} as const;

const deployOptions = {
  grow: { type: 'boolean', describe: 'fill a larger disk (--no-grow)' },
  'grow-partition': { type: 'number', describe: 'number of the one partition that grows' },
  partitions: { type: 'number', array: true, describe: 'write these only, into the layout that is there' },
  keep: { type: 'number', array: true, describe: 'leave these as they are' },
  'new-identity': { type: 'boolean', describe: 'fresh GUIDs or MBR signature' },
  'set-hostname': { type: 'boolean', describe: "give the system the host's name" },
  'fresh-machine-id': { type: 'boolean', describe: 'fresh machine-id and SSH host keys (Linux)' },
  'allow-damaged': { type: 'boolean', describe: 'deploy an image that lacks unreadable sectors' },
} as const;

const wipeOptions = {
  disk: {
    type: 'string',
    array: true,
    describe: 'serial number of a disk to erase or test; may be repeated',
  },
  'all-internal': {
    type: 'boolean',
    describe: "every disk of the machine's own: no USB, none that is shared",
  },
  passes: { type: 'number', describe: 'random passes of wipe-full, default 3' },
  purge: {
    type: 'boolean',
    describe: 'the drive erases itself first, proved; the task fails where it cannot',
  },
  'or-overwrite': {
    type: 'boolean',
    describe: 'with --purge: where the drive cannot, overwriting it will do',
  },
  countdown: { type: 'number', describe: 'seconds to stop it at the machine, default 10' },
  operator: { type: 'string', describe: 'who answers for it, for the certificate' },
  destination: { type: 'string', describe: 'what becomes of the disks, for the certificate' },
} as const;

const surfaceOptions = {
  mode: {
    choices: surfaceModeSchema.options,
    describe: 'read, or read-write: every block is written and its content put back',
  },
} as const;

type TaskArguments = Awaited<ReturnType<typeof taskOptions>['argv']>;

/**
 * Keys for the task: never an argument, since everybody on a machine can read those.
 *
 * @throws ImagingError BAD_REQUEST: asked for, and there are none
 */
export const taskSecrets = async (
  { unlockStdin, unlockFile }: TaskArguments,
  readStdin: () => Promise<string>,
): Promise<{ secrets?: { unlock: string[] } }> => {
  if (!unlockStdin && unlockFile === undefined) return {};
  const text = unlockFile === undefined ? await readStdin() : await readFile(unlockFile, 'utf8');
  const unlock = text.split(/\r?\n/).filter((line) => line !== '');
  if (unlock.length > 0) return { secrets: { unlock } };
  throw new ImagingError('BAD_REQUEST', 'Cannot add the task: no key was given to unlock with');
};

/** The body of POST /api/tasks. */
export const taskBody = (argv: TaskArguments) => ({
  host: argv.host,
  type: argv.type,
  after: argv.after,
  params: {
    ...(argv.image === undefined ? {} : imageOf(argv.type, argv.image)),
    ...diskOf(argv),
    ...defined({
      disks: (argv.disks ?? argv.disk)?.map((serial) => ({ serial })),
      allInternal: argv.allInternal,
      passes: argv.passes,
      purge: argv.purge,
      orOverwrite: argv.orOverwrite,
      countdownSeconds: argv.countdown,
      mode: argv.mode,
      operator: argv.operator,
      destination: argv.destination,
      level: argv.level,
      rescue: argv.rescue,
      raw: argv.raw,
      verify: argv.verify,
      dryRun: argv.dryRun,
      grow: argv.grow,
      growPartition: argv.growPartition,
      partitions: argv.partitions,
      keep: argv.keep,
      newIdentity: argv.newIdentity,
      setHostname: argv.setHostname,
      freshMachineId: argv.freshMachineId,
      allowDamaged: argv.allowDamaged,
    }),
  },
});

const imageOf = (type: string, text: string) => {
  if (type !== 'deploy') return { image: text };
  const { name, version } = parseImage(text);
  return { image: name, ...(version === undefined ? {} : { version }) };
};

const defined = (values: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
