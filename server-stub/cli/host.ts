import type { HostAnswer, NewHostBody } from '../api.ts';
import type { CommandContext } from './command.ts';
import { bytes, printable, table, when } from './format.ts';

export const addHost = async ({ api, print }: CommandContext, body: NewHostBody): Promise<void> => {
  const host = await api.post<HostAnswer>('/api/hosts', body);
  print(host, () => `added host ${printable(host.name)} (${host.macs.join(', ')})`);
};

export const listHosts = async ({ api, print }: CommandContext): Promise<void> => {
  const hosts = await api.get<HostAnswer[]>('/api/hosts');
  print(hosts, () =>
    hosts.length === 0
      ? 'no hosts'
      : table(
          ['NAME', 'MAC', 'LAST SEEN', 'MACHINE'],
          hosts.map((host) => [host.name, host.macs.join(','), when(host.lastSeen), machineOf(host)]),
        ),
  );
};

export const showHost = async ({ api, print }: CommandContext, key: string): Promise<void> => {
  const host = await api.get<HostAnswer>(`/api/hosts/${encodeURIComponent(key)}`);
  print(host, () =>
    [
      `name       ${printable(host.name)}`,
      `id         ${host.id}`,
      `macs       ${host.macs.join(', ')}`,
      `uuid       ${host.uuid ?? '-'}`,
      `machine    ${printable(machineOf(host))}`,
      `last seen  ${when(host.lastSeen)}`,
      `disk hint  ${host.disk ? printable(JSON.stringify(host.disk)) : '-'}`,
      `EFI loader ${printable(host.efiLoader ?? '-')}`,
      ...disksOf(host),
    ].join('\n'),
  );
};

export const removeHost = async ({ api, print }: CommandContext, key: string): Promise<void> => {
  await api.delete(`/api/hosts/${encodeURIComponent(key)}`);
  print({ removed: key }, () => `removed host ${printable(key)}`);
};

interface Facts {
  identity?: { manufacturer?: string; product?: string; firmware?: string };
  inventory?: { disks?: { name: string; model?: string; serial?: string; size: number }[] };
}

const machineOf = (host: HostAnswer): string => {
  const { manufacturer, product, firmware } = (host as Facts).identity ?? {};
  return [manufacturer, product, firmware].filter(Boolean).join(' ') || '-';
};

const disksOf = (host: HostAnswer): string[] =>
  ((host as Facts).inventory?.disks ?? []).map((disk) =>
    printable(`disk       ${disk.name} ${disk.model ?? ''} ${disk.serial ?? ''} ${bytes(disk.size)}`),
  );
