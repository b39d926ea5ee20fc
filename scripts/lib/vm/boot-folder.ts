import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fetch from 'node-fetch';
import { ImagingError } from '../../../agent/errors.ts';
import { askConfig } from '../../../server-stub/netboot/grub-config.ts';
import { askScript } from '../../../server-stub/netboot/ipxe-script.ts';
import type { MachineFirmware } from './firmware.ts';
import type { Network } from './hardware.ts';

/** The server's address as a machine behind QEMU's NAT sees it: the host's loopback is 10.0.2.2. */
export const seenFromMachine = (server: string): string =>
  server.replace(/\/$/, '').replace(/^(https?:\/\/)(127\.0\.0\.1|localhost|\[::1\])(?=[:/]|$)/, '$110.0.2.2');

/**
 * A network on QEMU's NAT that boots from `server`: fills `folder` with what its built-in TFTP server
 * gives out. The boot loaders come from the server itself, so that its URL is all that is needed.
 *
 * @throws ImagingError SERVER_UNREACHABLE, SERVER_ERROR, CONFIG_INVALID
 */
export const bootNetwork = async (
  server: string,
  firmware: MachineFirmware,
  folder: string,
): Promise<Network> => {
  const seen = seenFromMachine(server);
  await mkdir(join(folder, 'grub'), { recursive: true });
  // QEMU's BIOS cards hold iPXE already
  if (firmware === 'bios') {
    await writeFile(join(folder, 'autoexec.ipxe'), askScript(seen));
    return { kind: 'user', tftp: folder, bootfile: 'autoexec.ipxe' };
  }
  await writeFile(join(folder, 'grub/grub.cfg'), askConfig(seen));
  for (const name of ['shimx64.efi', 'grubx64.efi']) {
    await writeFile(join(folder, name), await download(`${server.replace(/\/$/, '')}/boot/files/${name}`));
  }
  return { kind: 'user', tftp: folder, bootfile: 'shimx64.efi' };
};

const download = async (url: string): Promise<Uint8Array> => {
  let answer: Awaited<ReturnType<typeof fetch>>;
  try {
    answer = await fetch(url);
  } catch (cause) {
    throw new ImagingError('SERVER_UNREACHABLE', `Cannot fetch ${url}: no answer`, { cause });
  }
  if (!answer.ok) throw new ImagingError('SERVER_ERROR', `Cannot fetch ${url}: HTTP ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
};
