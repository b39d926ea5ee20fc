import test from 'ava';
import { roleOf } from '../../../agent/disk/roles.ts';
import type { PartitionRole } from '../../../agent/protocol/index.ts';

const role = test.macro((t, type: string, filesystem: string, wanted: PartitionRole, hasOs?: boolean) => {
  t.is(roleOf({ type, filesystem, ...(hasOs ? { hasOs } : {}) }), wanted);
});

test('an ESP by its GUID, in any case', role, 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B', 'vfat', 'esp');
test('an ESP on MBR', role, 'ef', 'vfat', 'esp');
test('BIOS boot', role, '21686148-6449-6e6f-744e-656564454649', '', 'bios-boot');
test('Microsoft reserved', role, 'e3c9e316-0b5c-4db8-817d-f92df00215ae', '', 'msr');
test('Windows recovery', role, 'de94bba4-06d1-4d40-a16a-bfd50179d6ac', 'ntfs', 'recovery');
test('Windows itself', role, 'ebd0a0a2-b9e5-4433-87c0-68b6b72699c7', 'ntfs', 'os', true);
test('a Windows data partition', role, 'ebd0a0a2-b9e5-4433-87c0-68b6b72699c7', 'ntfs', 'data');
test('a recovery partition stays one with an OS inside', role, '27', 'ntfs', 'recovery', true);
test(
  'swap in a partition of type Linux filesystem',
  role,
  '0fc63daf-8483-4772-8e79-3d69d8477de4',
  'swap',
  'swap',
);
test('data in a partition of type swap', role, '82', 'ext4', 'data');
test('a Linux root by its own GUID', role, '4f68bce3-e8cd-4db1-96e7-fbcaf984b709', 'ext4', 'os');
test('LVM by its GUID', role, 'e6d6d379-f507-44c2-a23c-238f2a3df928', 'LVM2_member', 'data');
test('LVM on MBR', role, '8e', 'LVM2_member', 'data');
test('RAID', role, 'fd', 'linux_raid_member', 'data');
test('LUKS', role, 'ca7d7ccb-63ed-4c53-861c-1742536059cc', 'crypto_LUKS', 'data');
test('LUKS with an OS that a key showed', role, 'e8', 'crypto_LUKS', 'os', true);
test(
  'a dynamic disk of Windows, which nothing may move',
  role,
  'af9b60a0-1431-4f62-bc68-3311714a69ad',
  '',
  'unknown',
);
test("a vendor's hidden partition", role, '1c', 'vfat', 'oem');
test('PReP boot', role, '9e1a2d38-c612-4316-aa26-8b49521e5a8b', '', 'bios-boot');
test('a filesystem on the whole disk', role, '', 'ext4', 'data');
test('a system on the whole disk', role, '', 'ext4', 'os', true);
test('nothing known on the whole disk', role, '', '', 'unknown');
test('what nobody knows', role, '00000000-1111-4222-8333-444444444444', '', 'unknown');
