import { ImagingError } from '../../errors.ts';
import { run } from '../../process/run.ts';

const TIMEOUT_MS = 10 * 60_000;

/**
 * A command of lvm2 that sees these devices and no others, never talks to device-mapper (so activates nothing)
 * and keeps no notes.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const lvm = async (
  devices: readonly string[],
  command: string,
  args: readonly string[],
): Promise<string> => {
  const strange = devices.find((path) => !/^\/dev\/[\w/!-]+$/.test(path));
  if (strange !== undefined) throw new ImagingError('INTERNAL', `Cannot let LVM work on ${strange}`);
  const filter = [...devices.map((path) => `"a|^${path}$|"`), '"r|.*|"'].join(', ');
  const config = [
    `devices { filter = [${filter}] global_filter = [${filter}] use_devicesfile = 0 }`,
    'global { use_lvmpolld = 0 event_activation = 0 }',
    'backup { backup = 0 archive = 0 }',
    'activation { monitoring = 0 udev_sync = 0 udev_rules = 0 }',
  ].join(' ');
  const { stdout } = await run('lvm', [command, '--driverloaded', 'n', '--config', config, ...args], {
    timeoutMs: TIMEOUT_MS,
  });
  return stdout;
};
