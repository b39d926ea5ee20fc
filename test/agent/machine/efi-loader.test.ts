import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { findLoaders } from '../../../agent/machine/efi-loader.ts';

const loadersOf = async (t: ExecutionContext, files: readonly string[]) => {
  const folder = await mkdtemp(join(tmpdir(), 'esp-'));
  t.teardown(async () => await rm(folder, { recursive: true }));
  for (const file of files) {
    await mkdir(dirname(join(folder, file)), { recursive: true });
    await writeFile(join(folder, file), 'MZ');
  }
  return await findLoaders(folder);
};

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
