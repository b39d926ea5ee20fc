import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readAttribute } from '../disk/sysfs.ts';
import { ImagingError, isErrno } from '../errors.ts';
import { type Firmware, type Identity, identitySchema } from '../protocol/index.ts';
import { readInterfaces } from './network.ts';

export interface IdentityOptions {
  /** BOOTIF, any common spelling; default: the kernel command line's */
  bootMac?: string;
  /** where sysfs and procfs are found, `/`; a recorded tree in tests */
  root?: string;
}

/**
 * Who this machine says it is, from sysfs: interfaces with the one that booted first, SMBIOS without
 * what vendors leave in by default, firmware and Secure Boot.
 *
 * @throws ImagingError NETWORK_UNREACHABLE: no physical network interface
 */
export const readIdentity = async (options: IdentityOptions = {}): Promise<Identity> => {
  const { root = '/' } = options;
  const dmi = join(root, 'sys/class/dmi/id');
  const firmware = await readFirmware(root);
  const bootMac = normalizeBootMac(options.bootMac ?? (await bootMacOfKernel(root)));
  const macs = (await readInterfaces(root)).map(({ mac }) => mac);
  if (macs.length === 0) {
    throw new ImagingError(
      'NETWORK_UNREACHABLE',
      'Cannot identify this machine: it has no network interface',
    );
  }
  const text = async (name: string) => meaningful(await readAttribute(dmi, name));
  const [uuid, serial, manufacturer, product] = [
    meaningfulUuid(await readAttribute(dmi, 'product_uuid')),
    (await text('product_serial')) ?? (await text('board_serial')),
    await text('sys_vendor'),
    await text('product_name'),
  ];
  return identitySchema.parse({
    macs: [...new Set([...macs.filter((mac) => mac === bootMac), ...macs])],
    ...(uuid ? { uuid } : {}),
    ...(serial ? { serial } : {}),
    ...(manufacturer ? { manufacturer } : {}),
    ...(product ? { product } : {}),
    firmware,
    secureBoot: await readSecureBoot(root, firmware),
  });
};

/** The kernel makes this folder when UEFI started it. */
export const readFirmware = async (root = '/'): Promise<Firmware> => {
  try {
    await access(join(root, 'sys/firmware/efi'));
    return 'uefi';
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return 'bios';
    throw error;
  }
};

/** A text from SMBIOS, or undefined where the vendor never filled it in. */
export const meaningful = (text: string | null): string | undefined => {
  const trimmed = text?.trim() ?? '';
  if (trimmed === '' || fillers.has(trimmed.toLowerCase())) return undefined;
  // 00000000, XXXXXXX, ......., 0123456789, 123456789
  if (/^(.)\1*$/.test(trimmed) || '0123456789'.includes(trimmed)) return undefined;
  return trimmed;
};

const fillers = new Set([
  ...['default string', 'to be filled by o.e.m.', 'to be filled by oem', 'o.e.m.', 'oem', 'not specified'],
  ...[
    'not applicable',
    'not available',
    'n/a',
    'na',
    'none',
    'null',
    'unknown',
    'invalid',
    'empty',
    'undefined',
  ],
  ...['system serial number', 'system product name', 'system manufacturer', 'system version', 'system name'],
  ...['serial number', 'chassis serial number', 'base board serial number', 'type2 - board serial number'],
  ...['product name', 'type1productconfigid', 'sku', 'asset tag', 'no asset tag', '01234567890123456789ab'],
]);

const jokeUuids = new Set([
  '03000200-0400-0500-0006-000700080009',
  '00020003-0004-0005-0006-000700080009',
  '12345678-1234-5678-90ab-cddeefaabbcc',
  '12345678-1234-1234-1234-123456789abc',
]);

const meaningfulUuid = (text: string | null): string | undefined => {
  const uuid = text?.trim().toLowerCase() ?? '';
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(uuid) || jokeUuids.has(uuid)) return undefined;
  // zeros, ones, fefefefe…
  return /^(..)\1*$/.test(uuid.replaceAll('-', '')) ? undefined : uuid;
};

/** PXELINUX and iPXE put the hardware type in front: 01-52-54-00-12-34-56. */
const normalizeBootMac = (text: string | undefined): string | undefined => {
  const digits = text?.toLowerCase().replaceAll(/[^0-9a-f]/g, '') ?? '';
  const mac = digits.length === 14 ? digits.slice(2) : digits;
  return mac.length === 12 ? mac.match(/../g)?.join(':') : undefined;
};

const bootMacOfKernel = async (root: string): Promise<string | undefined> =>
  /(?:^|\s)BOOTIF=(\S+)/.exec((await readAttribute(join(root, 'proc'), 'cmdline')) ?? '')?.[1];

/** EFI_GLOBAL_VARIABLE; each file begins with 4 bytes of attributes. */
const GLOBAL = '8be4df61-93ca-11d2-aa0d-00e098032b8c';

const readSecureBoot = async (root: string, firmware: Firmware): Promise<Identity['secureBoot']> => {
  if (firmware === 'bios') return 'unsupported';
  const flag = async (name: string): Promise<number | undefined> => {
    try {
      return (await readFile(join(root, `sys/firmware/efi/efivars/${name}-${GLOBAL}`)))[4];
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return undefined;
      throw error;
    }
  };
  const enabled = await flag('SecureBoot');
  if (enabled === undefined) return 'unsupported';
  if ((await flag('SetupMode')) === 1) return 'setup';
  return enabled === 1 ? 'on' : 'off';
};
