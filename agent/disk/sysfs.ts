import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno } from '../errors.ts';

/** Where the kernel describes one block device; cciss/c0d0 is written cciss!c0d0 there. */
export const sysfsOf = (kernelName: string, root = '/sys'): string =>
  join(root, 'class/block', kernelName.replaceAll('/', '!'));

/** Kernel name of a device node: /dev/sda -> sda, /dev/cciss/c0d0 -> cciss/c0d0. */
export const kernelNameOf = (path: string): string => path.replace(/^\/dev\//, '');

/** One attribute, trimmed; null where the kernel or the device has none. */
export const readAttribute = async (folder: string, name: string): Promise<string | null> => {
  try {
    return (await readFile(join(folder, name), 'utf8')).replaceAll('\0', '').trim();
  } catch (error) {
    // EIO, EINVAL, ENODEV: attributes that the driver cannot answer just now
    if (
      ['ENOENT', 'ENOTDIR', 'EIO', 'EINVAL', 'ENODEV', 'ENXIO', 'EOPNOTSUPP'].some((name) =>
        isErrno(error, name),
      )
    )
      return null;
    throw error;
  }
};

export const readNumber = async (folder: string, name: string): Promise<number | null> => {
  const text = await readAttribute(folder, name);
  return text !== null && /^\d+$/.test(text) ? Number(text) : null;
};

/** Names in a folder of sysfs, sorted; none where it is missing. */
export const listNames = async (folder: string): Promise<string[]> => {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR')) return [];
    throw error;
  }
};

/** Last part of a link's target (driver, subsystem); null where there is none. */
export const readLinkName = async (folder: string, name: string): Promise<string | null> => {
  try {
    return (await readlink(join(folder, name))).split('/').at(-1) ?? null;
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR') || isErrno(error, 'EINVAL')) return null;
    throw error;
  }
};

/** What the kernel knows of a whole disk and lsblk does not tell, or tells only with udev's help. */
export interface SysfsDisk {
  /** number of this device since boot (Linux 5.15) */
  sequence: number | null;
  /** read-only by nature, where that can be told apart from a flag that we set */
  hardwareReadOnly: boolean;
  /** a card that people pull out */
  card: boolean;
  serial: string | null;
  wwn: string | null;
}

/** VIRTIO_BLK_F_RO (virtio 1.2, section 5.2.3); `features` lists bit 0 first */
const VIRTIO_BLK_F_RO = 5;

/**
 * `ro` in sysfs is no help: our udev rule sets it on every disk. Only virtio says by itself that the
 * device is read-only; for the others a claim finds out, because the flag does not go away.
 */
export const readSysfsDisk = async (kernelName: string, root = '/sys'): Promise<SysfsDisk> => {
  const folder = sysfsOf(kernelName, root);
  const features = kernelName.startsWith('vd') ? await readAttribute(folder, 'device/features') : null;
  return {
    sequence: await readNumber(folder, 'diskseq'),
    hardwareReadOnly: features?.[VIRTIO_BLK_F_RO] === '1',
    card: kernelName.startsWith('mmcblk') && (await readAttribute(folder, 'device/type')) === 'SD',
    serial: await readSerial(folder),
    wwn:
      worldWide(await readAttribute(folder, 'wwid')) ?? worldWide(await readAttribute(folder, 'device/wwid')),
  };
};

/** Kernels make up `t10.…` and `nvme.…` from model and serial where the device has no name of its own. */
const worldWide = (wwid: string | null): string | null =>
  wwid !== null && /^(naa|eui|uuid)\.[0-9a-f-]+$/i.test(wwid) ? wwid : null;

/** virtio: serial; NVMe, MMC: device/serial; SCSI: page 0x80 of the vital product data, 4 bytes of header. */
const readSerial = async (folder: string): Promise<string | null> => {
  const plain = (await readAttribute(folder, 'serial')) || (await readAttribute(folder, 'device/serial'));
  if (plain) return plain;
  try {
    const page = await readFile(join(folder, 'device/vpd_pg80'));
    return page.subarray(4).toString('latin1').replaceAll('\0', '').trim() || null;
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EINVAL', 'ENXIO', 'EIO'].some((name) => isErrno(error, name))) return null;
    throw error;
  }
};
