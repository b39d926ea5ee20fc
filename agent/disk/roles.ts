import type { PartitionRole } from '../protocol/index.ts';

export interface RoleFacts {
  /** GPT type GUID in lower case, or two hex digits of an MBR type; empty for a disk without a table */
  type: string;
  /** libblkid's name, empty for none */
  filesystem: string;
  /** an operating system was found inside */
  hasOs?: boolean;
}

/**
 * What a partition is for, by its type and content; never by its label, which is translated
 * ("Wiederherstellung") and free text.
 */
export const roleOf = ({ type, filesystem, hasOs = false }: RoleFacts): PartitionRole => {
  const known = roleOfType[type.toLowerCase()] ?? (type === '' && filesystem !== '' ? 'data' : 'unknown');
  // both are Linux's habit: a swap area in a partition of type "Linux filesystem", and the reverse
  if (filesystem === 'swap') return 'swap';
  if (known === 'swap' && filesystem !== '') return 'data';
  if (hasOs && (known === 'data' || known === 'unknown')) return 'os';
  return known;
};

/**
 * Sources: UEFI specification 2.10 section 5.3.3 (ESP); GRUB manual, "BIOS installation" (BIOS boot);
 * Microsoft Learn, PARTITION_INFORMATION_GPT (basic data, MSR, recovery, LDM, storage spaces);
 * UAPI group, Discoverable Partitions Specification (Linux); Apple TN2166; util-linux
 * include/pt-gpt-partnames.h and include/pt-mbr-partnames.h (OEM and MBR types).
 */
const roleOfType: Readonly<Record<string, PartitionRole>> = {
  // EFI system partition
  'c12a7328-f81f-11d2-ba4b-00a0c93ec93b': 'esp',
  // extended boot loader partition (XBOOTLDR)
  'bc13c2ff-59e6-4262-a352-b275fd6f7172': 'data',
  // BIOS boot: GRUB's core image
  '21686148-6449-6e6f-744e-656564454649': 'bios-boot',
  // PowerPC PReP boot: the firmware reads a boot loader from its first block
  '9e1a2d38-c612-4316-aa26-8b49521e5a8b': 'bios-boot',
  // Microsoft reserved
  'e3c9e316-0b5c-4db8-817d-f92df00215ae': 'msr',
  // Windows recovery environment
  'de94bba4-06d1-4d40-a16a-bfd50179d6ac': 'recovery',
  // Apple recovery (Recovery HD)
  '426f6f74-0000-11aa-aa11-00306543ecac': 'recovery',
  // Microsoft basic data: Windows itself and data
  'ebd0a0a2-b9e5-4433-87c0-68b6b72699c7': 'data',
  // Linux LVM, RAID, LUKS, dm-crypt; ZFS as Solaris /usr
  'e6d6d379-f507-44c2-a23c-238f2a3df928': 'data',
  'a19d880f-05fc-4d3b-a006-743f0f84911e': 'data',
  'ca7d7ccb-63ed-4c53-861c-1742536059cc': 'data',
  '7ffec5c9-2d00-49b7-8941-3ea10a5586b7': 'data',
  '6a898cc3-1dd2-11b2-99a6-080020736631': 'data',
  // Apple HFS+ and APFS
  '48465300-0000-11aa-aa11-00306543ecac': 'data',
  '7c3457ef-0000-11aa-aa11-00306543ecac': 'data',
  // Lenovo boot, Sony boot, HP tools (hpqtool) as vendors set them
  'bfbfafe7-a34f-448a-9a5b-6213eb736c22': 'oem',
  'f4019732-066e-4e12-8273-346c5641494f': 'oem',
  // Linux swap
  '0657fd6d-a4ab-43c4-84e5-0933c84b4f4f': 'swap',
  // Linux filesystem data
  '0fc63daf-8483-4772-8e79-3d69d8477de4': 'data',
  // Linux root: x86, x86-64, ARM, ARM64
  '44479540-f297-41b2-9af7-d131d5f0458a': 'os',
  '4f68bce3-e8cd-4db1-96e7-fbcaf984b709': 'os',
  '69dad710-2ce4-4e3c-b16c-21a1d49abed3': 'os',
  'b921b045-1df0-41c3-af44-4c6f280d3fae': 'os',
  // Linux root: RISC-V 64
  '72ec70a6-cf74-40e6-bd49-4bda08e8f224': 'os',
  // Linux /usr (x86-64), /home, /srv, /var, /var/tmp
  '8484680c-9521-48c6-9c11-b0720656f69e': 'os',
  '933ac7e1-2eb4-4f13-b844-0e14e2aef915': 'data',
  '3b8f8425-20e0-4f3b-907f-1a25a76f98e8': 'data',
  '4d21b016-b534-45c2-a9fb-5c16e091fd2d': 'data',
  '7ec6f557-3bc5-4aca-b293-16ef5df639d1': 'data',
  // MBR
  '01': 'data',
  '04': 'data',
  '06': 'data',
  '07': 'data',
  '0b': 'data',
  '0c': 'data',
  '0e': 'data',
  // Compaq/HP diagnostics, Dell utility
  '12': 'oem',
  de: 'oem',
  // Windows recovery (hidden NTFS)
  '27': 'recovery',
  // PReP boot
  '41': 'bios-boot',
  // hidden FAT and NTFS: vendors' recovery partitions
  '11': 'oem',
  '14': 'oem',
  '16': 'oem',
  '17': 'oem',
  '1b': 'oem',
  '1c': 'oem',
  '1e': 'oem',
  '82': 'swap',
  '83': 'data',
  // hibernation, as laptops of the nineties had it; Linux LVM, RAID, LUKS
  '84': 'oem',
  '8e': 'data',
  fd: 'data',
  e8: 'data',
  ef: 'esp',
};
