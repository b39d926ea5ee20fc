import { text } from 'node:stream/consumers';
import yargs, { type Argv } from 'yargs';
import { isImagingError } from '../agent/errors.ts';
import * as certificate from './cli/certificate.ts';
import { type ApiOptions, commandContext } from './cli/command.ts';
import * as host from './cli/host.ts';
import * as image from './cli/image.ts';
import { shrinkImage } from './cli/shrink.ts';
import * as task from './cli/task.ts';
import { diskOf, diskOptions, taskBody, taskOptions, taskSecrets } from './cli/task-options.ts';
import { defaultSettings } from './settings.ts';

export const DEFAULT_PORT = 8080;
const DEFAULT_DATA = 'data';

/** `fog-server`: the server and, over its HTTP API, everything that the server can do. @returns the exit code */
export const main = async (args: readonly string[]): Promise<number> => {
  let exitCode = 0;
  const ends = (code: number): void => {
    exitCode = code;
  };
  try {
    await cli(args, ends).parseAsync();
  } catch (error) {
    // a wrong command line has been explained by yargs; refusals have a code, the rest is a defect
    if (isImagingError(error)) console.error(`${error.message} [${error.code}]`);
    else if (!(error instanceof UsageError)) console.error(error);
    return error instanceof UsageError ? 2 : 1;
  }
  return exitCode;
};

class UsageError extends Error {}

const cli = (args: readonly string[], ends: (code: number) => void) =>
  yargs([...args])
    .scriptName('fog-server')
    .exitProcess(false)
    // --keep 3 --keep 4: a list must not swallow what follows it
    .parserConfiguration({ 'greedy-arrays': false })
    .strict()
    .demandCommand(1, 'Say what to do')
    .version(false)
    .help()
    .fail((message, error, usage) => {
      if (error) throw error;
      console.error(`${usage.help()}\n\n${message}`);
      throw new UsageError(message);
    })
    .option('data', {
      type: 'string',
      default: process.env['FOG_DATA'] ?? DEFAULT_DATA,
      describe: 'data folder of the server',
    })
    .command('serve', 'run the server', serveOptions, serve)
    .command('host', 'machines', (y) => hostCommands(api(y)))
    .command('image', 'images and their versions', (y) => imageCommands(api(y), ends))
    .command('task', 'tasks', (y) => taskCommands(api(y), ends))
    .command('certificate', 'certificates of erasure; needs no server', (y) => certificateCommands(y, ends));

const certificateCommands = (y: Argv, ends: (code: number) => void) =>
  y
    .option('data', { type: 'string', default: process.env['FOG_DATA'] ?? DEFAULT_DATA })
    .option('json', { type: 'boolean', default: false, describe: 'print JSON' })
    .demandCommand(1, 'Say what to do')
    .command(
      'verify <file>',
      'check that a certificate (JSON) is unaltered and signed by the trusted key',
      (c) =>
        c
          .positional('file', { type: 'string', demandOption: true })
          .option('key', {
            type: 'string',
            describe: 'trusted public key; default: of the server in --data',
          })
          .epilogue(
            'Ends with 0 for a certificate of erasure, 3 for a genuine record that says what is not erased, 1 for what is not to be trusted.',
          ),
      async (argv) => ends(await certificate.verifyFile(argv.file, argv)),
    )
    .command(
      'key',
      'the public key of the server in --data, which certificates are verified with',
      (c) => c,
      (argv) => certificate.showKey(argv),
    );

const api = (y: Argv) =>
  y
    .option('data', { type: 'string', default: process.env['FOG_DATA'] ?? DEFAULT_DATA })
    .option('server', {
      type: 'string',
      default: process.env['FOG_SERVER'] ?? `http://127.0.0.1:${DEFAULT_PORT}`,
      describe: 'URL of the server (FOG_SERVER)',
    })
    .option('token', {
      type: 'string',
      default: process.env['FOG_TOKEN'],
      defaultDescription: 'FOG_TOKEN, else <data>/admin-token',
      describe: 'admin token',
    })
    .option('json', { type: 'boolean', default: false, describe: 'print JSON' })
    .demandCommand(1, 'Say what to do');

const context = (options: ApiOptions) => commandContext(options);

const serveOptions = (y: Argv) =>
  y
    .option('data', { type: 'string', default: process.env['FOG_DATA'] ?? DEFAULT_DATA })
    .option('host', { type: 'string', default: '0.0.0.0', describe: 'address to listen on' })
    .option('port', { type: 'number', default: DEFAULT_PORT, describe: '0 takes a free one' })
    .option('artefacts', { type: 'string', describe: 'folder with kernel, initramfs and artefacts.json' })
    .option('register-unknown', {
      type: 'boolean',
      default: false,
      describe: 'register machines at their first network boot, with an inventory',
    })
    .option('slots', { type: 'number', default: 10, describe: 'imaging tasks at a time' })
    .option('log-level', { type: 'string', default: 'info', choices: ['debug', 'info', 'warn', 'error'] });

const serve = async (argv: Awaited<ReturnType<typeof serveOptions>['argv']>): Promise<void> => {
  // only here: the other commands need not load a server
  const [{ default: pino }, { startServer }] = await Promise.all([import('pino'), import('./serve.ts')]);
  const log = pino({ level: argv.logLevel }, pino.destination({ dest: 2, sync: true }));
  const server = await startServer({
    data: argv.data,
    host: argv.host,
    port: argv.port,
    registerUnknown: argv.registerUnknown,
    settings: { queue: { ...defaultSettings.queue, slots: argv.slots } },
    log,
    ...(argv.artefacts === undefined ? {} : { artefacts: argv.artefacts }),
  });
  console.log(`fog-server: ${server.url} (token in ${argv.data}/admin-token)`);
  await new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
  });
  await server.close();
};

const hostCommands = (y: ReturnType<typeof api>) =>
  y
    .command(
      'add <name> <mac..>',
      'register a machine',
      (c) =>
        c
          .positional('name', { type: 'string', demandOption: true })
          .positional('mac', { type: 'string', array: true, demandOption: true })
          .options(diskOptions),
      (argv) => host.addHost(context(argv), { name: argv.name, macs: argv.mac, ...diskOf(argv) }),
    )
    .command(
      'list',
      'all machines',
      (c) => c,
      (argv) => host.listHosts(context(argv)),
    )
    .command('show <host>', 'one machine: id, name or MAC', hostKey, (argv) =>
      host.showHost(context(argv), argv.host),
    )
    .command('remove <host>', 'forget a machine', hostKey, (argv) =>
      host.removeHost(context(argv), argv.host),
    );

const hostKey = (y: ReturnType<typeof api>) => y.positional('host', { type: 'string', demandOption: true });

const imageCommands = (y: ReturnType<typeof api>, ends: (code: number) => void) =>
  y
    .command(
      'list',
      'all images',
      (c) => c,
      (argv) => image.listImages(context(argv)),
    )
    .command('show <image>', 'versions of NAME, or the manifest of NAME@N', imageKey, (argv) =>
      image.showImage(context(argv), argv.image),
    )
    .command(
      'verify <image>',
      'read every chunk of NAME@N, or of all versions; exit 1 if hurt',
      imageKey,
      async (argv) => ends(await image.verifyImage(context(argv), argv.image)),
    )
    .command(
      'shrink <image>',
      'make a version of NAME@N for smaller disks, or find the one that is there',
      (c) =>
        imageKey(c)
          .option('to', { type: 'string', describe: '10GB, 9.3GiB or bytes; default: the smallest sensible' })
          .option('disk', { type: 'string', describe: 'd1, d2 …: which disk of an image of several' }),
      (argv) => shrinkImage(context(argv), argv.image, argv, (line) => console.error(line)),
    )
    .command(
      'remove <image>',
      'delete NAME@N and what was made from it, or NAME with all its versions',
      imageKey,
      (argv) => image.removeImage(context(argv), argv.image),
    );

const imageKey = (y: ReturnType<typeof api>) =>
  y.positional('image', { type: 'string', demandOption: true, describe: 'NAME or NAME@VERSION' });

const taskCommands = (y: ReturnType<typeof api>, ends: (code: number) => void) =>
  y
    .command('add <type> <host>', 'queue a task', taskOptions, async (argv) => {
      const secrets = await taskSecrets(argv, () => text(process.stdin));
      const id = await task.addTask(context(argv), { ...taskBody(argv), ...secrets });
      if (argv.wait) ends(await wait(argv, id));
    })
    .command(
      'list',
      'newest tasks',
      (c) => c.option('host', { type: 'string' }).option('open', { type: 'boolean', describe: 'not ended' }),
      (argv) => task.listTasks(context(argv), argv),
    )
    .command('show <id>', 'one task with its result', taskKey, (argv) =>
      task.showTask(context(argv), argv.id),
    )
    .command('cancel <id>', 'end a task', taskKey, (argv) => task.cancelTask(context(argv), argv.id))
    .command(
      'certificate <id>',
      'what was signed of a wipe, as JSON: the certificate, or the record of what is not erased',
      (c) => taskKey(c).option('pdf', { type: 'string', describe: 'write its pages to this file instead' }),
      (argv) => task.taskCertificate(context(argv), argv.id, argv, console.log),
    )
    .command('log <id>', "the agent's log", taskKey, (argv) =>
      task.taskLog(context(argv), argv.id, console.log),
    )
    .command(
      'wait <id>',
      'until it has ended; exit 0 succeeded, 1 failed, 3 cancelled, 4 lost',
      taskKey,
      async (argv) => ends(await wait(argv, argv.id)),
    );

const taskKey = (y: ReturnType<typeof api>) => y.positional('id', { type: 'string', demandOption: true });

const wait = (argv: ApiOptions, id: string): Promise<number> =>
  task.waitForTask(context(argv), id, { onChange: (line) => console.error(line) });

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
