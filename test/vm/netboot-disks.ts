import { closeSync, ftruncateSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../../agent/process/run.ts';

export const diskToken = 'own disk started';

// Prints the text behind it on COM1 (0x3f8), byte by byte as the port takes them, then resets the
// machine through the keyboard controller: cli; ds = 0; si = 0x7c27; lodsb … out 0x64, 0xfe; hlt
const SECTOR_CODE = 'fa31c08ed8fcbe277cac84c0741288c4bafd03eca82074fb88e0baf803eeebe9b0fee664f4ebfd';

/** A disk whose boot sector prints `diskToken` on the serial port and restarts the machine. */
export const makeBiosDisk = (file: string): void => {
  const sector = Buffer.alloc(1024 * 1024);
  const code = Buffer.from(SECTOR_CODE, 'hex');
  code.copy(sector);
  sector.write(`${diskToken}\r\n\0`, code.length);
  sector.writeUInt16LE(0xaa55, 510);
  writeFileSync(file, sector);
};

/**
 * A disk with an ESP that holds Debian's signed shim as `loader` (`EFI/…/x.efi`) and GRUB beside it,
 * which prints `diskToken` and restarts the machine.
 */
export const makeUefiDisk = async (file: string, artefacts: string, loader: string): Promise<void> => {
  const fd = openSync(file, 'w');
  ftruncateSync(fd, 64 * 1024 * 1024);
  closeSync(fd);
  await run('sfdisk', ['--quiet', file], { input: 'label: gpt\nstart=2048, size=126976, type=U\n' });
  const esp = `${file}@@1M`;
  await run('mformat', ['-i', esp, '-T', '126976', '-h', '64', '-s', '32', '::']);
  const folder = loader.slice(0, loader.lastIndexOf('/'));
  // Debian's GRUB for disks reads its configuration from here, wherever it lies itself
  for (const path of new Set([...parents(folder), ...parents('EFI/debian')])) {
    await run('mmd', ['-i', esp, '-D', 's', `::/${path}`]);
  }
  await run('mcopy', ['-i', esp, join(artefacts, 'disk-loader/shimx64.efi'), `::/${loader}`]);
  await run('mcopy', ['-i', esp, join(artefacts, 'disk-loader/grubx64.efi'), `::/${folder}/grubx64.efi`]);
  const config = `${file}.cfg`;
  writeFileSync(config, `echo "${diskToken}"\nsleep 1\nreboot\n`);
  await run('mcopy', ['-i', esp, config, '::/EFI/debian/grub.cfg']);
};

const parents = (path: string): string[] => {
  const parts = path.split('/');
  return parts.map((_, index) => parts.slice(0, index + 1).join('/'));
};
