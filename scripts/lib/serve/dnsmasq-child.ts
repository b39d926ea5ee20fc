import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ImagingError } from '../../../agent/errors.ts';
import { type DnsmasqOptions, dnsmasqConfig } from '../../../server-stub/netboot/dnsmasq.ts';
import { prepareTftp } from '../../../server-stub/netboot/tftp.ts';
import { type Child, startChild } from '../vm/child.ts';

export interface BootServerOptions extends Omit<DnsmasqOptions, 'tftpRoot'> {
  /** kernel, initramfs and boot loaders */
  artefacts: string;
  /** a folder of its own for the configuration and the TFTP root */
  folder: string;
  onLine?: (line: string) => void;
}

/**
 * Start a dnsmasq that boots machines from `serverUrl`; resolves once it has its sockets.
 *
 * @throws ImagingError CONFIG_INVALID (options, or dnsmasq's own words: a port is taken), NOT_FOUND
 */
export const startBootServer = async (options: BootServerOptions): Promise<Child> => {
  const { artefacts, folder, onLine, ...config } = options;
  const tftpRoot = join(folder, 'tftp');
  const file = join(folder, 'dnsmasq.conf');
  mkdirSync(folder, { recursive: true });
  // dnsmasq gives up root before it reads the first file
  chmodSync(folder, 0o755);
  writeFileSync(file, dnsmasqConfig({ ...config, tftpRoot }));
  await prepareTftp(artefacts, tftpRoot, options.serverUrl);
  return new Promise((resolve, reject) => {
    const child = startChild('dnsmasq', ['--keep-in-foreground', '--log-facility=-', `--conf-file=${file}`], {
      onLine: (line) => {
        onLine?.(line);
        if (/: started, version/.test(line)) resolve(child);
      },
    });
    void child.ended.then(() => {
      reject(new ImagingError('CONFIG_INVALID', `Cannot start dnsmasq: ${child.output().trim()}`));
    });
  });
};
