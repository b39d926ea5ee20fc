import { z } from 'zod';
import { ImagingError } from '../../agent/errors.ts';
import { macSchema } from '../../agent/protocol/index.ts';

/*
 * Everything that is put into a boot script passes through here. iPXE and GRUB read scripts as commands
 * and expand `${…}`, so each value has a set of characters in which neither can be said.
 */

const hostName = '[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?';
const serverUrlPattern = new RegExp(`^http://(${hostName})(?::([1-9][0-9]{0,4}))?/?$`);

export interface ServerAddress {
  /** `http://host:port`, without a slash at its end, the port only if it is not 80 */
  url: string;
  /** `host:port`, as GRUB writes it: `(http,host:port)` */
  authority: string;
}

/**
 * The address under which a machine's firmware reaches the server. Plain http by name or IPv4: GRUB has
 * no TLS, and what it loads is signed by Debian or carries nothing secret.
 *
 * @throws ImagingError CONFIG_INVALID
 */
export const parseServerUrl = (text: string): ServerAddress => {
  const match = serverUrlPattern.exec(text);
  const port = Number(match?.[2] ?? 80);
  if (!match || port > 65535) {
    throw new ImagingError('CONFIG_INVALID', `Cannot boot from ${printable(text)}: not http://HOST[:PORT]`);
  }
  const authority = port === 80 ? (match[1] as string) : `${match[1]}:${port}`;
  return { url: `http://${authority}`, authority };
};

/** @throws ImagingError BAD_REQUEST */
export const parseMac = (text: string): string => {
  const parsed = macSchema.safeParse(text);
  if (!parsed.success) {
    throw new ImagingError('BAD_REQUEST', `Cannot boot ${printable(text)}: not a MAC address`);
  }
  return parsed.data;
};

// boards without a UUID of their own say all zeros or all ones
const uuidSchema = z
  .string()
  .toLowerCase()
  .regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
  .transform((uuid) => (/^[0-]+$|^[f-]+$/.test(uuid) ? undefined : uuid));

/** @throws ImagingError BAD_REQUEST; undefined for a UUID that identifies nothing */
export const parseUuid = (text: string): string | undefined => {
  const parsed = uuidSchema.safeParse(text);
  if (!parsed.success) throw new ImagingError('BAD_REQUEST', `Cannot boot ${printable(text)}: not a UUID`);
  return parsed.data;
};

const segment = /^[A-Za-z0-9_][A-Za-z0-9._-]*$/;

/**
 * A loader's path as GRUB writes it (`/EFI/debian/shimx64.efi`), from EFI's spelling or GRUB's.
 *
 * @throws ImagingError CONFIG_INVALID for anything but plain names below the root
 */
export const parseLoaderPath = (text: string): string => {
  const path = text.replaceAll('\\', '/');
  const segments = path.replace(/^\//, '').split('/');
  if (text.length > 200 || !segments.every((part) => segment.test(part)) || !/\.efi$/i.test(path)) {
    throw new ImagingError(
      'CONFIG_INVALID',
      `Cannot start ${printable(text)}: not the path of an EFI loader`,
    );
  }
  return `/${segments.join('/')}`;
};

const argument = /^[A-Za-z0-9][A-Za-z0-9._-]*(=[A-Za-z0-9.,:/_-]*)?$/;

/** @throws ImagingError CONFIG_INVALID for a word that a boot script or the kernel could read as more than one */
export const parseKernelArgument = (text: string): string => {
  if (text.length > 200 || !argument.test(text)) {
    throw new ImagingError(
      'CONFIG_INVALID',
      `Cannot pass ${printable(text)} to the kernel: not allowed there`,
    );
  }
  return text;
};

const nonce = /^[0-9a-f]{32}$/;

/** @throws ImagingError BAD_REQUEST */
export const parseNonce = (text: string): string => {
  if (!nonce.test(text)) throw new ImagingError('BAD_REQUEST', 'Cannot boot: not a boot handle');
  return text;
};

const printable = (text: string): string => JSON.stringify(text.slice(0, 60));
