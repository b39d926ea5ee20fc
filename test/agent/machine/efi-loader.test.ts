import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { copiesFor } from '../../../agent/machine/efi-fallback.ts';
import { findLoaders } from '../../../agent/machine/efi-loader.ts';

const folderOf = async (t: ExecutionContext, files: readonly string[]): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'esp-'));
  t.teardown(async () => await rm(folder, { recursive: true }));
  for (const file of files) {
    await mkdir(dirname(join(folder, file)), { recursive: true });
    await writeFile(join(folder, file), 'MZ');
  }
  return folder;
};

const loadersOf = async (t: ExecutionContext, files: readonly string[]) =>
  await findLoaders(await folderOf(t, files));

test('Windows, with names as they are written on the ESP', async (t) => {
  t.deepEqual(await loadersOf(t, ['EFI/MICROSOFT/Boot/bootmgfw.efi', 'EFI/Boot/bootx64.efi']), {
    found: ['\\EFI\\MICROSOFT\\Boot\\bootmgfw.efi', '\\EFI\\Boot\\bootx64.efi'],
    fallback: true,
  });
});

test('Linux’s shim comes before its GRUB and before Windows', async (t) => {
  const files = ['efi/ubuntu/grubx64.efi', 'efi/ubuntu/shimx64.efi', 'efi/Microsoft/Boot/bootmgfw.efi'];
  t.deepEqual(await loadersOf(t, files), {
    found: [
      '\\efi\\ubuntu\\shimx64.efi',
      '\\efi\\ubuntu\\grubx64.efi',
      '\\efi\\Microsoft\\Boot\\bootmgfw.efi',
    ],
    fallback: false,
  });
});

test('nothing on an empty ESP, and no loader in other files', async (t) => {
  t.deepEqual(await loadersOf(t, []), { found: [], fallback: false });
  t.deepEqual(await loadersOf(t, ['EFI/debian/grub.cfg', 'EFI/HP/tool.efi', 'shimx64.efi']), {
    found: [],
    fallback: false,
  });
});

test('32-bit firmware has loaders of its own', async (t) => {
  const files = ['EFI/debian/shimia32.efi', 'EFI/debian/shimx64.efi', 'EFI/BOOT/BOOTX64.EFI'];
  const folder = await folderOf(t, files);
  t.deepEqual(await findLoaders(folder, 'ia32'), { found: ['\\EFI\\debian\\shimia32.efi'], fallback: false });
  t.deepEqual(await findLoaders(folder, 'aa64'), { found: [], fallback: false });
  t.true((await findLoaders(folder)).fallback);
});

test('what makes a fallback: shim brings GRUB and MokManager, the others come alone', (t) => {
  t.deepEqual(copiesFor('\\EFI\\debian\\shimx64.efi', 'x64'), [
    { from: 'EFI/debian/grubx64.efi', to: 'EFI/BOOT/grubx64.efi' },
    { from: 'EFI/debian/mmx64.efi', to: 'EFI/BOOT/mmx64.efi' },
    { from: 'EFI/debian/shimx64.efi', to: 'EFI/BOOT/BOOTX64.EFI' },
  ]);
  t.deepEqual(copiesFor('\\EFI\\Microsoft\\Boot\\bootmgfw.efi', 'x64'), [
    { from: 'EFI/Microsoft/Boot/bootmgfw.efi', to: 'EFI/BOOT/BOOTX64.EFI' },
  ]);
  t.deepEqual(copiesFor('\\EFI\\systemd\\systemd-bootaa64.efi', 'aa64'), [
    { from: 'EFI/systemd/systemd-bootaa64.efi', to: 'EFI/BOOT/BOOTAA64.EFI' },
  ]);
});
