import yargs from 'yargs';
import { hideBin } from 'yargs/helpers';
import { showDisks } from './commands/disks.ts';
import { showInventory } from './commands/inventory.ts';
import { runCommand } from './commands/run.ts';
import { surfaceTestCommand } from './commands/surface-test.ts';
import { verifyCommand } from './commands/verify.ts';
import { wipeCommand } from './commands/wipe.ts';
import { toImagingError } from './errors.ts';
import { surfaceModeSchema } from './protocol/index.ts';
import { agentVersion } from './version.ts';

const jsonOption = { type: 'boolean', default: false, describe: 'for scripts' } as const;

/** The `fog` command: wiring only. */
const main = async (): Promise<void> => {
  await yargs(hideBin(process.argv))
    .scriptName('fog')
    .usage(
      '$0 [command]\n\nThe imaging agent of this machine. Without a command: do what the task server says.',
    )
    .command(
      ['run', '$0'],
      'check in, do the tasks that the server has for this machine, restart',
      (command) =>
        command
          .option('server', {
            type: 'string',
            describe: 'URL of the task server, instead of the one that booted this machine',
          })
          .option('stay', {
            type: 'boolean',
            describe: 'never restart or power off; ends when there is nothing to do',
          })
          .option('screen', {
            type: 'string',
            describe: 'terminal of the status screen',
            default: '/dev/tty1',
          }),
      (options) =>
        runCommand({
          screen: options.screen,
          ...(options.server === undefined ? {} : { server: options.server }),
          ...(options.stay === undefined ? {} : { stay: options.stay }),
        }),
    )
    .command('disks', 'list the disks, and why some can never be a target', { json: jsonOption }, showDisks)
    .command('inventory', 'show what this machine is made of', { json: jsonOption }, showInventory)
    .command(
      'verify <image>',
      'compare a disk with an image version, NAME or NAME@N, and list what differs; writes nothing',
      (command) =>
        command
          .positional('image', { type: 'string', demandOption: true, describe: 'NAME or NAME@N' })
          .option('disk', {
            type: 'string',
            describe: 'serial number, where the machine has several disks (fog disks)',
          })
          .option('image-disk', { type: 'string', describe: 'disk of an image of several, default d1' })
          .option('server', { type: 'string', describe: 'URL of the task server' })
          .option('json', jsonOption)
          .epilogue('Ends with 0 when they are the same, 1 when they differ, 2 when it could not find out.'),
      ({ image, disk, imageDisk, server, json }) =>
        verifyCommand({
          ...{ image, json },
          ...(disk === undefined ? {} : { disk }),
          ...(imageDisk === undefined ? {} : { imageDisk }),
          ...(server === undefined ? {} : { server }),
        }),
    )
    .command(
      'wipe',
      'erase disks of this machine, and read back that they are; prints what it did to each',
      (command) =>
        command
          .option('disk', {
            type: 'string',
            array: true,
            describe: 'serial number of a disk (fog disks); may be repeated',
          })
          .option('all-internal', {
            type: 'boolean',
            default: false,
            describe: "every disk of the machine's own: no USB, none that is shared",
          })
          .option('mode', {
            choices: ['fast', 'normal', 'full'] as const,
            default: 'normal' as const,
            describe: 'both ends only; one random pass over all; several',
          })
          .option('passes', { type: 'number', describe: 'random passes of --mode full, default 3' })
          .option('purge', {
            type: 'boolean',
            default: false,
            describe: 'have the drive erase itself first; fails where it cannot',
          })
          .option('or-overwrite', {
            type: 'boolean',
            default: false,
            describe: 'with --purge: where the drive cannot, overwriting it will do',
          })
          .option('verify', {
            choices: ['full', 'sample'] as const,
            default: 'full' as const,
            describe: 'what is read back: all, or a tenth at random places',
          })
          .option('yes', { type: 'boolean', default: false, describe: 'no question and no countdown' })
          .option('dry-run', {
            type: 'boolean',
            default: false,
            describe: 'say what would be erased, write nothing',
          })
          .option('json', jsonOption)
          .epilogue('Ends with 0 when every chosen disk was erased and read back, 1 when not.'),
      ({ disk, passes, ...options }) =>
        wipeCommand({
          ...options,
          ...(disk === undefined ? {} : { disk }),
          ...(passes === undefined ? {} : { passes }),
        }),
    )
    .command(
      'surface-test',
      'read disks of this machine from end to end with badblocks, and say what each is worth',
      (command) =>
        command
          .option('disk', {
            type: 'string',
            array: true,
            describe: 'serial number of a disk (fog disks), also a USB one; may be repeated',
          })
          .option('all-internal', {
            type: 'boolean',
            default: false,
            describe: "every disk of the machine's own; what is tested where none is named",
          })
          .option('mode', {
            choices: surfaceModeSchema.options,
            default: 'read' as const,
            describe: 'read-write: every block is written, read back, and its content put back',
          })
          .option('json', jsonOption)
          .epilogue('Ends with 0 when all are good, 1 suspect, 2 bad, 3 when one could not be tested.'),
      ({ disk, ...options }) => surfaceTestCommand({ ...options, ...(disk === undefined ? {} : { disk }) }),
    )
    .version(agentVersion)
    .strict()
    .demandCommand(0)
    .help()
    .fail((message, error) => {
      throw error ?? new UsageError(message);
    })
    .parseAsync();
};

class UsageError extends Error {}

try {
  await main();
} catch (error) {
  if (error instanceof UsageError) {
    console.error(`fog: ${error.message} (fog --help)`);
    process.exitCode = 2;
  } else {
    const { code, message } = toImagingError(error);
    console.error(`fog: ${message} [${code}]`);
    process.exitCode = 1;
  }
}
