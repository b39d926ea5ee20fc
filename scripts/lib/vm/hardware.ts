import { statSync } from 'node:fs';
import { ImagingError } from '../../../agent/errors.ts';
import { escapeOption } from './firmware.ts';

export const diskBuses = ['virtio', 'sata', 'nvme', 'usb'] as const;
export type DiskBus = (typeof diskBuses)[number];

export interface DiskOptions {
  /** a file, a block device, or `nbd+unix:///EXPORT?socket=PATH` (nbdkit) */
  file: string;
  bus?: DiskBus | undefined;
  serial?: string | undefined;
  readOnly?: boolean | undefined;
  format?: 'raw' | 'qcow2' | undefined;
  /** logical sector size in bytes, default 512 */
  sectorSize?: 512 | 4096 | undefined;
  /** numbers of 512-byte sectors that fail every read (QEMU's blkdebug) */
  badSectors?: readonly number[] | undefined;
}

export const nicModels = ['virtio', 'e1000', 'e1000e', 'rtl8139', 'vmxnet3'] as const;
export type NicModel = (typeof nicModels)[number];

export type Network =
  /** QEMU's own NAT: the host is 10.0.2.2; `tftp` is a folder it serves, `bootfile` a name in it */
  | { kind: 'user'; tftp?: string | undefined; bootfile?: string | undefined }
  /** an existing tap interface, usually a port of a bridge in a namespace */
  | { kind: 'tap'; interface: string }
  /** a card without a cable partner */
  | { kind: 'none' };

export interface NicOptions {
  mac?: string | undefined;
  model?: NicModel | undefined;
  network?: Network | undefined;
}

/** Arguments for a machine's disks, ids `disk0`, `disk1`, … in the order given. */
export const diskArguments = (
  disks: readonly DiskOptions[],
  firstBootIndex: number | undefined,
): string[] => [
  ...(disks.some(({ bus }) => bus === 'usb') ? ['-device', 'qemu-xhci,id=xhci'] : []),
  ...disks.flatMap((disk, index) => oneDisk(disk, index, firstBootIndex)),
];

const oneDisk = (disk: DiskOptions, index: number, firstBootIndex: number | undefined): string[] => {
  const { bus = 'virtio', readOnly = false, sectorSize = 512 } = disk;
  if (readOnly && bus === 'sata') {
    throw new ImagingError(
      'CONFIG_INVALID',
      'Cannot attach a read-only disk to SATA: QEMU 7.2 refuses, use virtio, nvme or usb',
    );
  }
  const node = {
    driver: disk.format ?? 'raw',
    'node-name': `drive${index}`,
    'read-only': readOnly,
    discard: 'unmap',
    file: disk.badSectors ? sickNode(disk.file, readOnly, disk.badSectors) : fileNode(disk.file, readOnly),
  };
  const device = [
    { virtio: 'virtio-blk-pci', sata: 'ide-hd', nvme: 'nvme', usb: 'usb-storage' }[bus],
    `id=disk${index}`,
    `drive=drive${index}`,
    // q35's own AHCI controller has one bus for each port
    ...(bus === 'sata' ? [`bus=ide.${index}`] : []),
    ...(bus === 'usb' ? ['bus=xhci.0'] : []),
    // an NVMe controller must have a serial number
    ...(disk.serial || bus === 'nvme' ? [`serial=${escapeOption(disk.serial ?? `nvme-${index}`)}`] : []),
    ...(sectorSize === 512 ? [] : [`logical_block_size=${sectorSize}`, `physical_block_size=${sectorSize}`]),
    ...(firstBootIndex === undefined ? [] : [`bootindex=${firstBootIndex + index}`]),
  ];
  return ['-blockdev', JSON.stringify(node), '-device', device.join(',')];
};

const sickNode = (file: string, readOnly: boolean, sectors: readonly number[]): Record<string, unknown> => ({
  driver: 'blkdebug',
  image: fileNode(file, readOnly),
  'inject-error': sectors.map((sector) => ({ event: 'none', iotype: 'read', errno: 5, sector })),
});

const fileNode = (file: string, readOnly: boolean): Record<string, unknown> => {
  if (file.startsWith('nbd+unix:')) {
    const url = new URL(file);
    const path = url.searchParams.get('socket');
    if (!path) throw new ImagingError('CONFIG_INVALID', `Cannot attach ${file}: no ?socket=PATH`);
    return {
      driver: 'nbd',
      server: { type: 'unix', path },
      export: decodeURIComponent(url.pathname.replace(/^\//, '')),
    };
  }
  const driver = statSync(file, { throwIfNoEntry: false })?.isBlockDevice() ? 'host_device' : 'file';
  return { driver, filename: file, 'read-only': readOnly, 'auto-read-only': false };
};

/** Arguments for a machine's network cards; the first one boots if `bootIndex` is given. */
export const nicArguments = (
  nics: readonly NicOptions[],
  { efi, bootIndex }: { efi: boolean; bootIndex: number | undefined },
): string[] =>
  nics.flatMap((nic, index) => {
    const { model = 'virtio', network = { kind: 'user' } } = nic;
    const device = [
      model === 'virtio' ? 'virtio-net-pci' : model,
      ...(network.kind === 'none' ? [] : [`netdev=net${index}`]),
      `mac=${nic.mac ?? `52:54:00:12:34:${(0x56 + index).toString(16)}`}`,
      // OVMF has its own virtio driver and PXE client, as real firmware has for its own card; iPXE's
      // ROM is not signed and would hide them. For other cards iPXE's ROM is the only driver there is.
      ...(efi && model === 'virtio' ? ['romfile='] : []),
      ...(bootIndex === undefined ? [] : [`bootindex=${bootIndex + index}`]),
    ];
    return [...netdev(network, index), '-device', device.join(',')];
  });

const netdev = (network: Network, index: number): string[] => {
  switch (network.kind) {
    case 'none':
      return [];
    case 'tap':
      return ['-netdev', `tap,id=net${index},ifname=${network.interface},script=no,downscript=no`];
    case 'user':
      return [
        '-netdev',
        [
          `user,id=net${index}`,
          // the guest's own resolver is not asked for: nothing but the host is to be reached by name
          ...(network.tftp ? [`tftp=${escapeOption(network.tftp)}`] : []),
          ...(network.bootfile ? [`bootfile=${escapeOption(network.bootfile)}`] : []),
        ].join(','),
      ];
  }
};
