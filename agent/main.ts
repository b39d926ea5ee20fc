import yargs from 'yargs';
import { hideBin } from 'yargs/helpers';
import { showDisks } from './commands/disks.ts';
import { showInventory } from './commands/inventory.ts';
import { runCommand } from './commands/run.ts';
import { verifyCommand } from './commands/verify.ts';
import { toImagingError } from './errors.ts';
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
          .option('server', { type: 'string', describe: 'URL of the task server' })
          .option('json', jsonOption)
          .epilogue('Ends with 0 when they are the same, 1 when they differ, 2 when it could not find out.'),
      ({ image, disk, server, json }) =>
        verifyCommand({
          ...{ image, json },
          ...(disk === undefined ? {} : { disk }),
          ...(server === undefined ? {} : { server }),
        }),
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
