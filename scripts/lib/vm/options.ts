import yargs from 'yargs';
import { ImagingError } from '../../../agent/errors.ts';
import { macSchema } from '../../../agent/protocol/index.ts';
import { type MachineFirmware, machineFirmwares } from './firmware.ts';
import { type DiskOptions, diskBuses, type NicModel, nicModels } from './hardware.ts';

export interface VmOptions {
  server: string | undefined;
  disks: DiskOptions[];
  nics: { mac?: string; model?: NicModel }[];
  firmware: MachineFirmware;
  memory: number;
  processors: number;
  boot: 'net' | 'disk' | 'firmware';
  timeoutMs: number;
  console: string | undefined;
  screenshot: string | undefined;
  tap: string | undefined;
  vars: string | undefined;
  qmp: string | undefined;
  uuid: string | undefined;
}

/** The command line of scripts/vm. @throws ImagingError CONFIG_INVALID */
export const parseVmOptions = async (args: readonly string[]): Promise<VmOptions> => {
  const argv = await yargs(args)
    .scriptName('scripts/vm')
    .usage('$0 --server URL --mac MAC --disk FILE[,bus=virtio|sata|nvme|usb][,serial=S][,ro] …')
    .usage('Starts an emulated PC that boots from the network. Ends with 0 when it powers off or restarts by')
    .usage('itself, with 124 when it has not by the time limit.')
    .option('server', { type: 'string', describe: 'task server to boot from; 127.0.0.1 works' })
    .option('mac', { type: 'string', describe: 'MAC address of the first network card' })
    .option('disk', { type: 'string', array: true, default: [], describe: 'also format=qcow2, sector=4096' })
    .option('firmware', { choices: machineFirmwares, default: 'bios' as const })
    .option('memory', { type: 'number', default: 1024, describe: 'MiB' })
    .option('processors', { type: 'number', default: 1 })
    .option('boot', { choices: ['net', 'disk', 'firmware'] as const, default: 'net' as const })
    .option('timeout', { type: 'number', default: 900, describe: 'seconds' })
    .option('console', { type: 'string', describe: 'file for the serial console; default standard output' })
    .option('screenshot', { type: 'string', describe: 'PNG of the screen as it was at the end' })
    .option('nic', {
      type: 'string',
      array: true,
      default: [],
      describe: 'a card: MODEL[,mac=MAC], repeatable',
    })
    .option('tap', { type: 'string', describe: 'tap interface for the first card, instead of NAT' })
    .option('vars', { type: 'string', describe: 'file of UEFI variables, kept between boots' })
    .option('qmp', { type: 'string', describe: 'socket for QEMU commands' })
    .option('uuid', { type: 'string', describe: 'SMBIOS system UUID' })
    .strict()
    .version(false)
    .exitProcess(false)
    .fail((message, error) => {
      throw new ImagingError('CONFIG_INVALID', `Cannot start a machine: ${message ?? String(error)}`);
    })
    .parseAsync();
  if (argv['help']) process.exit(0);
  if (argv.boot === 'net' && !argv.tap && !argv.server) {
    throw new ImagingError('CONFIG_INVALID', 'Cannot boot from the network: no --server (or --tap) is given');
  }
  const nics = argv.nic.map(parseNic);
  const first = { ...nics[0], ...(argv.mac === undefined ? {} : { mac: parseMac(argv.mac) }) };
  return {
    server: argv.server,
    disks: argv.disk.map(parseDisk),
    nics: [first, ...nics.slice(1)],
    firmware: argv.firmware,
    memory: argv.memory,
    processors: argv.processors,
    boot: argv.boot,
    timeoutMs: argv.timeout * 1000,
    console: argv.console,
    screenshot: argv.screenshot,
    tap: argv.tap,
    vars: argv.vars,
    qmp: argv.qmp,
    uuid: argv.uuid,
  };
};

/** `FILE[,bus=…][,serial=…][,format=…][,sector=…][,ro]`; a comma in the file's name is written twice. */
export const parseDisk = (text: string): DiskOptions => {
  const [file = '', ...settings] = splitOptions(text);
  const disk: DiskOptions = { file };
  if (!file) throw badDisk(text, 'no file');
  for (const setting of settings) {
    const [key, value] = keyAndValue(setting);
    if (key === 'ro' && value === '') disk.readOnly = true;
    else if (key === 'serial') disk.serial = value;
    else if (key === 'bus') disk.bus = oneOf(diskBuses, value, text);
    else if (key === 'format') disk.format = oneOf(['raw', 'qcow2'] as const, value, text);
    else if (key === 'sector') disk.sectorSize = value === '4096' ? 4096 : 512;
    else throw badDisk(text, `"${setting}" is not known`);
  }
  return disk;
};

const parseNic = (text: string): { mac?: string; model?: NicModel } => {
  const [model = '', ...settings] = splitOptions(text);
  const nic: { mac?: string; model?: NicModel } = { model: oneOf(nicModels, model, text) };
  for (const setting of settings) {
    const [key, value] = keyAndValue(setting);
    if (key !== 'mac') throw badDisk(text, `"${setting}" is not known`);
    nic.mac = parseMac(value);
  }
  return nic;
};

const parseMac = (text: string): string => {
  const parsed = macSchema.safeParse(text);
  if (parsed.success) return parsed.data;
  throw new ImagingError('CONFIG_INVALID', `Cannot use "${text}": not a MAC address`);
};

/** At single commas; doubled ones stay as one. */
const splitOptions = (text: string): string[] =>
  text
    .replaceAll(',,', '\0')
    .split(',')
    .map((part) => part.replaceAll('\0', ','));

const keyAndValue = (setting: string): [string, string] => {
  const at = setting.indexOf('=');
  return at < 0 ? [setting, ''] : [setting.slice(0, at), setting.slice(at + 1)];
};

const oneOf = <T extends string>(values: readonly T[], value: string, text: string): T => {
  const found = values.find((one) => one === value);
  if (found === undefined) throw badDisk(text, `"${value}" is none of ${values.join(', ')}`);
  return found;
};

const badDisk = (text: string, reason: string): ImagingError =>
  new ImagingError('CONFIG_INVALID', `Cannot use "${text}": ${reason}`);
