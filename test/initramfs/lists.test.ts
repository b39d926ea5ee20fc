import test from 'ava';
import { selectFirmware } from '../../initramfs/build/firmware.ts';
import { parseList } from '../../initramfs/build/lists.ts';
import { parseDependencies, selectModules } from '../../initramfs/build/modules.ts';

const dependencies = parseDependencies(
  [
    'kernel/drivers/scsi/sd_mod.ko.xz: kernel/lib/t10.ko.xz kernel/drivers/scsi/scsi_mod.ko.xz',
    'kernel/drivers/scsi/scsi_mod.ko.xz:',
    'kernel/drivers/scsi/fcoe/fcoe.ko.xz: kernel/drivers/scsi/scsi_mod.ko.xz',
    'kernel/lib/t10.ko.xz:',
    'kernel/sound/snd.ko.xz:',
    '',
  ].join('\n'),
);

test('a list has neither comments nor blank lines, each entry once and sorted', (t) => {
  t.deepEqual(parseList('# why\nb # because\n\na\nb\n'), ['a', 'b']);
  t.deepEqual(parseList('kernel/#1\n'), ['kernel/#1']);
});

test('a folder brings its modules and what they depend on, and nothing else', (t) => {
  t.deepEqual(selectModules(['drivers/scsi/'], dependencies), [
    'kernel/drivers/scsi/fcoe/fcoe.ko.xz',
    'kernel/drivers/scsi/scsi_mod.ko.xz',
    'kernel/drivers/scsi/sd_mod.ko.xz',
    'kernel/lib/t10.ko.xz',
  ]);
});

test('a minus leaves modules out, unless another chosen one depends on them', (t) => {
  const chosen = selectModules(
    ['drivers/scsi/', '-drivers/scsi/fcoe/', '-drivers/scsi/scsi_mod'],
    dependencies,
  );
  t.false(chosen.includes('kernel/drivers/scsi/fcoe/fcoe.ko.xz'));
  t.true(chosen.includes('kernel/drivers/scsi/scsi_mod.ko.xz'));
});

test('an entry that matches no module is an error, one that is built into the kernel is not', (t) => {
  t.throws(() => selectModules(['drivers/scsi/no_such'], dependencies), { message: /no_such/ });
  t.notThrows(() => selectModules(['lib/crc32'], dependencies, new Set(['kernel/lib/crc32.ko'])));
});

test('firmware is what a module names, exactly or as a glob, with the corrections of firmware.txt', (t) => {
  const have = ['bnx2/a.fw', 'intel/ice/ddp/ice.pkg', 'qed/init-8.37.bin', 'rtl_bt/x.bin', 'other.bin'];
  const named = ['bnx2/a.fw', 'qed/init-*.bin', 'rtl_bt/x.bin', 'not/packaged.bin'];
  t.deepEqual(
    [...selectFirmware(have, named, ['+intel/ice/ddp/*', '-rtl_bt/*'])],
    ['bnx2/a.fw', 'intel/ice/ddp/ice.pkg', 'qed/init-8.37.bin'],
  );
});
