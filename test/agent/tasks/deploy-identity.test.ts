import test from 'ava';
import { isRelocated } from '../../../agent/os/windows-recovery.ts';
import type { Manifest, Plan } from '../../../agent/protocol/index.ts';
import {
  assertIdentityPossible,
  isComputerName,
  isHostname,
  relocationOf,
} from '../../../agent/tasks/deploy-identity.ts';

type Part = Manifest['disks'][number]['partitions'][number];
type Volume = Part['contains'][number];

const facts = (type: string) => ({ type, uuid: '', label: '', minimumBytes: null, usedBytes: null });

const part = (number: number, role: Part['role'], filesystem: string, contains: Volume[] = []): Part => ({
  ...{
    name: `p${number}`,
    number,
    start: number * 2 ** 20,
    size: 2 ** 20,
    type: '',
    label: '',
    attributes: '',
  },
  ...{ uuid: `UUID-${number}`, role, filesystem: facts(filesystem), method: 'used' as const, reason: '' },
  ...{ index: null, map: null, bootRecord: null, contains, decryptedFrom: null, damaged: [] },
});

const volume = (kind: Volume['kind'], filesystem: string): Volume => ({
  ...{ kind, name: 'vg/root', uuid: '', size: 2 ** 20, role: 'os', filesystem: facts(filesystem) },
  ...{ method: 'used', reason: '' },
});

const imageOf = (partitions: Part[]): { manifest: Manifest; plan: Plan } => {
  const disk = { name: 'd1', size: 2 ** 30, logicalSectorSize: 512 as const, table: 'gpt' as const };
  return {
    manifest: {
      ...{
        format: 1,
        image: 'i',
        version: 1,
        derivedFrom: null,
        createdAt: '',
        firmware: 'uefi',
        chunkSize: 2 ** 20,
      },
      disks: [
        { ...disk, model: '', serial: '', tableId: 'DISK-1', bootArea: null, extended: null, partitions },
      ],
      ...{ os: null, tools: {} },
    },
    plan: {
      ...{
        image: 'i',
        version: 1,
        imageDisk: 'd1',
        table: 'gpt',
        tableId: 'disk-1',
        oldTable: 'removed',
        extended: null,
        kept: [],
        moved: [],
        unused: [],
        warnings: [],
      },
      disk: { serial: '', wwn: '', size: 2 ** 30, logicalSectorSize: 512 },
      partitions: partitions.map(({ name, number, start, size, role, method, filesystem, uuid }) => ({
        ...{ name, number, start, size, contentSize: size, grow: false, role, method },
        ...{
          filesystem: filesystem?.type ?? '',
          type: '',
          uuid: uuid.toLowerCase(),
          label: '',
          attributes: '',
          bootRecord: null,
        },
      })),
    },
  };
};

const linux = [part(1, 'esp', 'vfat'), part(2, 'os', 'ext4')];
const windows = [part(1, 'esp', 'vfat'), part(3, 'os', 'ntfs'), part(4, 'recovery', 'ntfs')];
const NAME = { setHostname: true, freshMachineId: false };
const FRESH = { setHostname: false, freshMachineId: true };

const refusal = (partitions: Part[], params: typeof NAME, name: string): string | null => {
  const { manifest, plan } = imageOf(partitions);
  try {
    assertIdentityPossible(manifest, [plan], params, name);
    return null;
  } catch (error) {
    const { code, message } = error as Error & { code: string };
    return `${code} ${message}`;
  }
};

test('what can be done is let through', (t) => {
  t.is(refusal(linux, { setHostname: true, freshMachineId: true }, 'lab-7.example.org'), null);
  t.is(refusal(windows, NAME, 'LAB-7.example.org'), null);
  t.is(
    refusal([...linux, part(5, 'os', 'ntfs')], { setHostname: true, freshMachineId: true }, 'lab-7'),
    null,
  );
  t.is(refusal([part(1, 'data', 'LVM2_member', [volume('lvm', 'xfs')])], NAME, 'lab-7'), null);
  t.is(refusal([], { setHostname: false, freshMachineId: false }, 'Any / name'), null);
});

test('what cannot be done is refused from image and plan alone', (t) => {
  const refused = (partitions: Part[], params: typeof NAME, name: string, reason: RegExp) => {
    const said = refusal(partitions, params, name) ?? '';
    t.regex(said, /^OPTION_REFUSED/);
    t.regex(said, reason);
  };
  refused([part(1, 'data', 'ext4'), part(2, 'data', 'ntfs')], NAME, 'lab-7', /no operating system/);
  refused([part(1, 'os', 'zfs_member')], FRESH, 'lab-7', /no operating system/);
  refused([part(1, 'os', 'crypto_LUKS')], NAME, 'lab-7', /encrypted/);
  refused([part(1, 'data', 'crypto_LUKS', [volume('luks', 'ext4')])], NAME, 'lab-7', /encrypted/);
  refused(windows, FRESH, 'lab-7', /sysprep/);
  refused(windows, NAME, 'a-name-of-16-char', /1 to 15.*a-name-of-16-char/);
  refused(windows, NAME, 'Room 5 / PC 2', /1 to 15/);
  refused(linux, NAME, 'Room 5 / PC 2', /at most 64/);
});

test('names', (t) => {
  for (const name of ['a', 'LAB-7', 'x'.repeat(15), '7up']) t.true(isComputerName(name), name);
  for (const name of ['', '-a', 'a-', '1234', 'a_b', 'a.b', 'a b', 'ä', 'x'.repeat(16), 'a\n']) {
    t.false(isComputerName(name), name);
  }
  for (const name of ['a', 'lab-7.example.org', 'x'.repeat(63), '1234']) t.true(isHostname(name), name);
  for (const name of ['', '.', 'a..b', 'a.', '-a', 'a_b', 'a b', '$(id)', 'x'.repeat(64), 'a\n']) {
    t.false(isHostname(name), name);
  }
});

test('what the plan moves and renews', (t) => {
  const { manifest, plan } = imageOf(windows);
  t.deepEqual([...relocationOf(manifest, plan).guids], []);
  t.false(isRelocated(relocationOf(manifest, plan)));
  t.true(isRelocated(relocationOf({ ...manifest, derivedFrom: 1 }, plan)));
  const recovery = plan.partitions[2];
  if (recovery) recovery.start = 7 * 2 ** 20;
  plan.tableId = 'DISK-2';
  t.deepEqual(relocationOf(manifest, plan), {
    moves: [
      { from: 1 * 2 ** 20, to: 1 * 2 ** 20 },
      { from: 3 * 2 ** 20, to: 3 * 2 ** 20 },
      { from: 4 * 2 ** 20, to: 7 * 2 ** 20 },
    ],
    guids: new Map([['disk-1', 'disk-2']]),
    unsure: false,
  });
});
