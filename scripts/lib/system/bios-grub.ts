import { mkdir, open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../../agent/process/run.ts';
import { kernelOf } from './configure.ts';

export interface BootCodeOptions {
  /** disk image file */
  disk: string;
  /** root tree with grub-pc-bin and grub-common */
  tree: string;
  /** first byte of the BIOS boot partition on the disk */
  biosPartition: number;
  /** the folder of grub.cfg as GRUB names it: `(hd0,gpt2)/boot/grub` */
  prefix: string;
}

export interface GrubOptions {
  tree: string;
  /** UUID of the filesystem that holds /boot */
  uuid: string;
  /** path of /boot on it: `/boot`, or nothing where it is a filesystem of its own */
  boot: '/boot' | '';
  /** the kernel's `root=` */
  root: string;
}

/** The tree's own /boot/grub/grub.cfg: its one kernel at once, on screen and serial port. */
export const writeGrubConfig = async ({ tree, uuid, boot, root }: GrubOptions): Promise<void> => {
  const kernel = await kernelOf(tree);
  const lines = [
    'serial --unit=0 --speed=115200',
    'terminal_input console serial',
    'terminal_output console serial',
    'set timeout=0',
    `search --no-floppy --fs-uuid --set=root ${uuid}`,
    `linux ${boot}/vmlinuz-${kernel} root=${root} ro console=tty0 console=ttyS0,115200 quiet`,
    `initrd ${boot}/initrd.img-${kernel}`,
    'boot',
    '',
  ];
  await mkdir(join(tree, 'boot/grub'), { recursive: true });
  await writeFile(join(tree, 'boot/grub/grub.cfg'), lines.join('\n'));
};

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
  prefix,
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
    prefix,
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
