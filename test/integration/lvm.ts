import { z } from 'zod';
import { run } from '../../agent/process/run.ts';

/**
 * lvm2 on these devices only, without device-mapper (metadata needs none) and without writing anything down
 * on this machine.
 */
export const lvm = async (
  devices: readonly string[],
  command: string,
  args: readonly string[],
): Promise<string> => {
  const filter = [...devices.map((path) => `"a|^${path}$|"`), '"r|.*|"'].join(',');
  const config = [
    `devices { filter = [${filter}] use_devicesfile = 0 }`,
    'global { use_lvmpolld = 0 event_activation = 0 }',
    'backup { backup = 0 archive = 0 }',
    'activation { monitoring = 0 udev_sync = 0 udev_rules = 0 }',
  ].join(' ');
  const { stdout } = await run('lvm', [command, '--driverloaded', 'n', '--config', config, ...args]);
  return stdout;
};

const reportSchema = z.object({
  report: z.array(z.object({ seg: z.array(z.object({ lv_name: z.string(), seg_pe_ranges: z.string() })) })),
});

/** Where each logical volume lies, by lvm2: device and bytes, in order. */
export const placesOf = async (
  devices: readonly string[],
): Promise<Map<string, { device: string; offset: number; length: number }[]>> => {
  const starts = new Map<string, number>();
  const pvs = await lvm(devices, 'pvs', [
    '--noheadings',
    '--nosuffix',
    '--units',
    'b',
    '-o',
    'pv_name,pe_start',
  ]);
  for (const line of pvs.trim().split('\n')) {
    const [device = '', start] = line.trim().split(/\s+/);
    starts.set(device, Number(start));
  }
  const extent = Number(
    (
      await lvm(devices, 'vgs', ['--noheadings', '--nosuffix', '--units', 'b', '-o', 'vg_extent_size'])
    ).trim(),
  );
  const json = await lvm(devices, 'lvs', [
    '--segments',
    '--reportformat',
    'json',
    '-o',
    'lv_name,seg_pe_ranges',
  ]);
  const places = new Map<string, { device: string; offset: number; length: number }[]>();
  for (const { lv_name: name, seg_pe_ranges: ranges } of reportSchema.parse(JSON.parse(json)).report[0]
    ?.seg ?? []) {
    const [, device = '', first, last] = /^(\S+):(\d+)-(\d+)$/.exec(ranges) ?? [];
    const place = {
      device,
      offset: (starts.get(device) ?? 0) + Number(first) * extent,
      length: (Number(last) - Number(first) + 1) * extent,
    };
    places.set(name, [...(places.get(name) ?? []), place]);
  }
  return places;
};
