import { chmod, copyFile, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ImagingError, isErrno } from '../../agent/errors.ts';
import { bootLoaders } from './artefacts.ts';
import { askConfig } from './grub-config.ts';
import { askScript } from './ipxe-script.ts';

/**
 * Make `folder` a TFTP root: the boot loaders out of `artefacts`, and two scripts that only ask
 * `serverUrl` what this machine is to do. The same files for every machine; what differs comes by HTTP.
 *
 * @throws ImagingError CONFIG_INVALID (bad URL), NOT_FOUND (artefacts not built)
 */
export const prepareTftp = async (artefacts: string, folder: string, serverUrl: string): Promise<void> => {
  const scripts = { 'grub/grub.cfg': askConfig(serverUrl), 'autoexec.ipxe': askScript(serverUrl) };
  await rm(folder, { recursive: true, force: true });
  await mkdir(join(folder, 'grub'), { recursive: true });
  // dnsmasq serves as a user who owns nothing
  for (const path of [folder, join(folder, 'grub')]) await chmod(path, 0o755);
  for (const name of bootLoaders) {
    try {
      await copyFile(join(artefacts, name), join(folder, name));
    } catch (cause) {
      if (!isErrno(cause, 'ENOENT')) throw cause;
      throw new ImagingError('NOT_FOUND', `Cannot serve ${name}: it is not in ${artefacts}`, { cause });
    }
    await chmod(join(folder, name), 0o644);
  }
  for (const [name, text] of Object.entries(scripts))
    await writeFile(join(folder, name), text, { mode: 0o644 });
};
