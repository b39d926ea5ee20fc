import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../../agent/process/run.ts';

export interface BootCodeOptions {
  /** disk image file */
  disk: string;
  /** root tree with grub-pc-bin and grub-common */
  tree: string;
  /** first byte of the BIOS boot partition on the disk */
  biosPartition: number;
  /** number of the partition that holds /boot/grub */
  rootPartition: number;
}

/**
 * What grub-install does for a BIOS machine, on an image file: core.img into the BIOS boot partition,
 * boot.img into the boot code of the first sector. grub-install itself wants device nodes of partitions,
 * which loop devices do not have everywhere.
 *
 * Offsets from GRUB 2.12: boot.S `kernel_sector` at 0x5c (LBA of core.img, 64 bit); diskboot.S
 * `firstlist` at 0x1f4 of core.img's first sector (LBA of its second, 64 bit; length and segment are
 * filled by grub-mkimage).
 */
export const writeBootCode = async ({
  disk,
  tree,
  biosPartition,
  rootPartition,
}: BootCodeOptions): Promise<void> => {
  const modules = 'biosdisk part_gpt ext2 normal linux search search_fs_uuid configfile serial terminal echo';
  await run('chroot', [
    tree,
    'grub-mkimage',
    '-O',
    'i386-pc',
    '-o',
    '/var/tmp/core.img',
    '-p',
    `(hd0,gpt${rootPartition})/boot/grub`,
    ...modules.split(' '),
  ]);
  const core = await readFile(join(tree, 'var/tmp/core.img'));
  const boot = await readFile(join(tree, 'usr/lib/grub/i386-pc/boot.img'));
  const firstSector = BigInt(biosPartition / 512);
  core.writeBigUInt64LE(firstSector + 1n, 0x1f4);
  boot.writeBigUInt64LE(firstSector, 0x5c);
  await using file = await open(disk, 'r+');
  await file.write(core, 0, core.length, biosPartition);
  await file.write(boot, 0, 440, 0);
};
