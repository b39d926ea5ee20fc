import { join } from 'node:path';
import { listNames, readAttribute, readLinkName } from '../disk/sysfs.ts';
import type { Inventory } from '../protocol/index.ts';

const ETHERNET = '1';

/** The physical network interfaces of this machine: those with a device behind them. `root`: `/`. */
export const readInterfaces = async (root = '/'): Promise<Inventory['network']> => {
  const folder = join(root, 'sys/class/net');
  const interfaces: Inventory['network'] = [];
  for (const name of await listNames(folder)) {
    const path = join(folder, name);
    if ((await readLinkName(path, 'device')) === null) continue;
    const mac = (await readAttribute(path, 'address'))?.toLowerCase() ?? '';
    if ((await readAttribute(path, 'type')) !== ETHERNET || !isMac(mac)) continue;
    const driver = await readLinkName(join(path, 'device'), 'driver');
    // an interface that is down answers EINVAL to carrier, and -1 or nothing to speed
    const speed = Number((await readAttribute(path, 'speed')) ?? Number.NaN);
    interfaces.push({
      name,
      mac,
      ...(driver ? { driver } : {}),
      carrier: (await readAttribute(path, 'carrier')) === '1',
      speedMbit: speed > 0 && speed < 2 ** 31 ? speed : null,
    });
  }
  return interfaces;
};

const isMac = (text: string): boolean =>
  /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(text) && !/^(00:){5}00$|^(ff:){5}ff$/.test(text);
