import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { readAt, writeAt } from '../../agent/disk/device-io.ts';
import { totalLength } from '../../agent/filesystem/extents.ts';
import { run } from '../../agent/process/run.ts';
import { inspectVolumes } from '../../agent/volumes/inspect.ts';
import { encodeConfig, parseConfig } from '../../agent/volumes/lvm/config.ts';
import { growVolumes } from '../../agent/volumes/lvm/grow.ts';
import {
  checkText,
  encodeMetadata,
  parseLabel,
  parseMdaHeader,
  textRanges,
} from '../../agent/volumes/lvm/on-disk.ts';
import { readVolume } from '../../agent/volumes/lvm/read.ts';
import { attachLoop, hashOf, MIB, partitionOn } from './loop-device.ts';
import { lvm, placesOf } from './lvm.ts';

const { signal } = new AbortController();
const options = { signal, keys: [], raw: false, replay: false };
const NO_LV = ['-an', '-Zn', '-Wn'];

const open = new Set<string>();

/** A node for one place of a logical volume that lies in one piece. */
const openPlace = async (
  t: ExecutionContext,
  { device, offset, length }: { device: string; offset: number; length: number },
): Promise<string> => {
  const range = ['--offset', String(offset), '--sizelimit', String(length)];
  const path = (await run('losetup', ['--find', '--show', ...range, device])).stdout.trim();
  await run('blockdev', ['--setrw', path]);
  open.add(path);
  t.teardown(async () => await closePlace(path));
  return path;
};

/** Once only: the number may be somebody else's by then. */
const closePlace = async (path: string): Promise<void> => {
  if (open.delete(path)) await run('losetup', ['--detach', path]);
};

const fill = async (device: string): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), 'fill-'));
  await run('mount', [device, folder]);
  try {
    await mkdir(join(folder, 'etc'));
    await writeFile(join(folder, 'etc/os-release'), 'NAME="Debian GNU/Linux"\nVERSION_ID="12"\n');
    for (let n = 0; n < 30; n++) await writeFile(join(folder, `file-${n}`), randomBytes(n * 9000));
    for (let n = 0; n < 30; n += 3) await rm(join(folder, `file-${n}`));
  } finally {
    await run('umount', [folder]);
    await rm(folder, { recursive: true });
  }
};

const sumsOf = async (device: string): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'sums-'));
  await run('mount', ['-o', 'ro,noload', device, folder]);
  try {
    return (
      await run('sh', [
        '-c',
        'cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum',
        'sh',
        folder,
      ])
    ).stdout;
  } finally {
    await run('umount', [folder]);
    await rm(folder, { recursive: true });
  }
};

const copyExtents = async (
  from: string,
  to: string,
  extents: readonly { offset: number; length: number }[],
): Promise<void> => {
  for (const { offset, length } of extents) {
    for (let done = 0; done < length; done += MIB) {
      const bytes = await readAt(from, offset + done, Math.min(MIB, length - done));
      await writeAt(to, [{ offset: offset + done, bytes }]);
    }
  }
  await run('blockdev', ['--flushbufs', to]);
};

const makeGroup = async (t: ExecutionContext, sizes: readonly number[]): Promise<string[]> => {
  const devices: string[] = [];
  for (const size of sizes) devices.push((await attachLoop(t, size)).path);
  await lvm(devices, 'pvcreate', ['-q', ...devices]);
  await lvm(devices, 'vgcreate', ['-q', 'daten.vg', ...devices]);
  return devices;
};

test.serial(
  'a volume group on two disks: what its volumes use makes the same group with the same files, and nothing is written',
  async (t) => {
    const devices = await makeGroup(t, [200 * MIB, 120 * MIB]);
    const [first = '', second = ''] = devices;
    const create = async (name: string, size: string, on: string[]) =>
      await lvm(devices, 'lvcreate', ['-q', ...NO_LV, '-n', name, '-L', size, 'daten.vg', ...on]);
    await create('root', '80M', [first]);
    await create('swap', '16M', [first]);
    await create('home', '60M', [second]);
    await create('noise', '8M', [second]);
    await create('wide', '60M', [first]);
    await lvm(devices, 'lvextend', ['-q', '-L', '+20M', 'daten.vg/wide', second]);
    const places = await placesOf(devices);
    t.is(places.get('wide')?.length, 2);
    const nodes: Record<string, string> = {};
    for (const name of ['root', 'swap', 'home', 'noise']) {
      const [place] = places.get(name) ?? [];
      if (place) nodes[name] = await openPlace(t, place);
    }
    for (const name of ['root', 'home']) {
      await run('mkfs.ext4', ['-q', nodes[name] ?? '']);
      await fill(nodes[name] ?? '');
    }
    await run('mkswap', ['--uuid', '0b8bd0c5-1a2f-4f5e-9c55-8b6d2c1e0f11', nodes['swap'] ?? '']);
    const noise = randomBytes(8 * MIB);
    await writeAt(nodes['noise'] ?? '', [{ offset: 0, bytes: noise }]);
    const sums = { root: await sumsOf(nodes['root'] ?? ''), home: await sumsOf(nodes['home'] ?? '') };
    for (const path of Object.values(nodes)) {
      await run('blockdev', ['--flushbufs', path]);
      await closePlace(path);
    }
    for (const path of devices) {
      await run('blockdev', ['--flushbufs', path]);
      await run('blockdev', ['--setro', path]);
    }
    const before = [await hashOf(first), await hashOf(second)];

    const looks = await inspectVolumes(
      [partitionOn(first, 200 * MIB), partitionOn(second, 120 * MIB, 'p2')],
      options,
    );
    t.deepEqual([await hashOf(first), await hashOf(second)], before);
    const { stdout: backing } = await run('losetup', ['--list', '--noheadings', '--output', 'BACK-FILE']);
    t.false(
      backing.split('\n').some((path) => devices.includes(path.trim())),
      'nothing stays open',
    );

    t.deepEqual(
      looks.map(({ method, reason, os }) => ({ method, reason, os: os?.name })),
      [
        { method: 'used', reason: '', os: 'Debian GNU/Linux' },
        { method: 'used', reason: '', os: 'Debian GNU/Linux' },
      ],
    );
    t.like(looks[0]?.filesystem, {
      minimumBytes: null,
      minimumReason: 'its volume group daten.vg has 2 physical volumes',
    });
    const inside = Object.fromEntries((looks[0]?.contains ?? []).map((one) => [one.name, one]));
    t.deepEqual(new Set(Object.keys(inside)), new Set(['daten.vg/root', 'daten.vg/swap', 'daten.vg/wide']));
    t.like(inside['daten.vg/root'], { kind: 'lvm', role: 'os', method: 'used', size: 80 * MIB });
    t.is(inside['daten.vg/root']?.filesystem?.type, 'ext4');
    t.like(inside['daten.vg/swap'], { role: 'swap', method: 'used' });
    // this kernel has no device-mapper to open a volume of two pieces with
    t.is(inside['daten.vg/wide']?.method, 'raw');
    t.true(totalLength(looks[0]?.extents ?? []) < 110 * MIB, 'free space and swap are left out');

    const copies = [(await attachLoop(t, 200 * MIB)).path, (await attachLoop(t, 120 * MIB)).path];
    for (const [at, look] of looks.entries())
      await copyExtents(devices[at] ?? '', copies[at] ?? '', look.extents);
    await lvm(copies, 'vgck', ['daten.vg']);
    const report = ['--reportformat', 'json', '-o', 'vg_uuid,vg_seqno,lv_name,lv_uuid,lv_size,seg_type'];
    t.is(await lvm(copies, 'lvs', report), await lvm(devices, 'lvs', report));
    const again = await placesOf(copies);
    for (const name of ['root', 'home'] as const) {
      const [place] = again.get(name) ?? [];
      if (!place) throw new Error(`no ${name}`);
      const node = await openPlace(t, place);
      await run('e2fsck', ['-f', '-n', node]);
      t.is(await sumsOf(node), sums[name]);
    }
    const [swap] = again.get('swap') ?? [];
    const probed = await run('blkid', [
      '-p',
      '-o',
      'value',
      '-s',
      'UUID',
      '-O',
      String(swap?.offset),
      swap?.device ?? '',
    ]);
    t.is(probed.stdout.trim(), '0b8bd0c5-1a2f-4f5e-9c55-8b6d2c1e0f11');
    const [place] = again.get('noise') ?? [];
    t.true((await readAt(place?.device ?? '', place?.offset ?? 0, 8 * MIB)).equals(noise));
  },
);

test.serial(
  'a part of a group on a disk that is not captured, stripes, an exported group, a damaged one: whole, and the reason says it',
  async (t) => {
    const devices = await makeGroup(t, [80 * MIB, 80 * MIB]);
    const [first = '', second = ''] = devices;
    await lvm(devices, 'lvcreate', ['-q', ...NO_LV, '-n', 'small', '-L', '16M', 'daten.vg', first]);
    await lvm(devices, 'lvcreate', ['-q', ...NO_LV, '-n', 'stripes', '-i', '2', '-L', '16M', 'daten.vg']);
    await lvm(devices, 'lvcreate', ['-q', ...NO_LV, '-n', 'both', '-l', '100%FREE', 'daten.vg']);
    const one = async () => (await inspectVolumes([partitionOn(first, 80 * MIB)], options))[0];
    const reasons = async () =>
      Object.fromEntries(
        ((await one())?.contains ?? []).map(({ name, method, reason }) => [name, [method, reason]]),
      );
    const found = await reasons();
    t.deepEqual(found['daten.vg/small'], ['raw', '']);
    t.deepEqual(found['daten.vg/stripes'], ['raw', '2 stripes']);
    t.deepEqual(found['daten.vg/both'], [
      'raw',
      'a part of it lies on a physical volume that is not captured with it',
    ]);
    const look = await one();
    // 16 + 16 / 2 + all that remains
    t.true(totalLength(look?.extents ?? []) >= 72 * MIB);

    await lvm(devices, 'vgexport', ['-q', 'daten.vg']);
    t.like(await one(), { method: 'raw', reason: 'volume group daten.vg is exported' });
    await lvm(devices, 'vgimport', ['-q', 'daten.vg']);

    const label = parseLabel(await readAt(first, 0, 2048));
    const area = label?.metadataAreas[0];
    if (!area) throw new Error('no metadata area');
    const header = parseMdaHeader(await readAt(first, area.start, 512), area);
    const at = area.start + (header.text?.offset ?? 0) + 100;
    const byte = await readAt(first, at, 1);
    await writeAt(first, [{ offset: at, bytes: Buffer.from([(byte[0] ?? 0) ^ 1]) }]);
    t.like(await one(), {
      method: 'raw',
      reason: "Cannot read the LVM physical volume: its metadata's checksum is wrong",
    });
    t.is((await one())?.extents[0]?.length, 80 * MIB);
    // the other disk still says what the group is
    const [healed] = await inspectVolumes(
      [partitionOn(first, 80 * MIB), partitionOn(second, 80 * MIB)],
      options,
    );
    t.is(healed?.method, 'raw');
  },
);

test.serial(
  'on a larger partition the group, its system volume and the filesystem grow, by lvm2 and all checks',
  async (t) => {
    const { path, file } = await attachLoop(t, 120 * MIB);
    await lvm([path], 'pvcreate', ['-q', path]);
    await lvm([path], 'vgcreate', ['-q', 'grow.vg', path]);
    for (const [name, size] of [
      ['root', '40M'],
      ['swap', '8M'],
      ['home', '60M'],
    ] as const) {
      await lvm([path], 'lvcreate', ['-q', ...NO_LV, '-n', name, '-L', size, 'grow.vg']);
    }
    const places = await placesOf([path]);
    for (const name of ['root', 'home']) {
      const [place] = places.get(name) ?? [];
      if (!place) throw new Error(`no ${name}`);
      const node = await openPlace(t, place);
      await run('mkfs.ext4', ['-q', node]);
      if (name === 'root') await fill(node);
      await closePlace(node);
    }
    await run('blockdev', ['--flushbufs', path]);
    const [look] = await inspectVolumes([partitionOn(path, 120 * MIB)], options);
    t.is(look?.method, 'used');
    // two ext4 give space, the swap volume of 8 MiB and the first MiB do not
    const minimum = look?.filesystem?.minimumBytes ?? 0;
    t.true(minimum > 9 * MIB && minimum < 100 * MIB, String(minimum));
    t.is((minimum - MIB) % (4 * MIB), 0);
    await truncate(file, 300 * MIB);
    await run('losetup', ['--set-capacity', path]);
    const deployed = { device: path, nodes: [path], contains: look?.contains ?? [], signal };
    const grow = async () => (await growVolumes(deployed)).proofs.map(({ what }) => what);
    const said = [
      'grow.vg/root fills its volume group',
      'volume group grow.vg is sound',
      'grow.vg/root is sound',
      'grow.vg/home is sound',
    ];
    // root's next extents are home's: what it gets is a second piece, which this kernel cannot open
    const error = await t.throwsAsync(grow);
    t.regex(error?.message ?? '', /dmsetup/);
    await lvm([path], 'lvremove', ['-q', '--yes', 'grow.vg/home']);
    await lvm([path], 'lvremove', ['-q', '--yes', 'grow.vg/swap']);
    await lvm([path], 'lvreduce', ['-q', '--yes', '--force', '-L', '40M', 'grow.vg/root']);
    t.deepEqual(await grow(), said.slice(0, 3));
    // an interrupted deploy grows again
    t.deepEqual(await grow(), said.slice(0, 3));
    await lvm([path], 'vgck', ['grow.vg']);
    const [place] = (await placesOf([path])).get('root') ?? [];
    t.is(place?.length, 296 * MIB);
    const node = await openPlace(t, place ?? { device: '', offset: 0, length: 0 });
    await run('e2fsck', ['-f', '-n', node]);
    const { stdout } = await run('dumpe2fs', ['-h', node]);
    t.is(
      Number(/^Block count:\s+(\d+)/m.exec(stdout)?.[1]) * Number(/^Block size:\s+(\d+)/m.exec(stdout)?.[1]),
      296 * MIB,
    );
    t.is((await sumsOf(node)).split('\n').length, 22);
  },
);

test.serial('metadata that we write is metadata to lvm2', async (t) => {
  const [device = ''] = await makeGroup(t, [80 * MIB]);
  await lvm([device], 'lvcreate', ['-q', ...NO_LV, '-n', 'root', '-L', '20M', 'daten.vg']);
  const report = ['--reportformat', 'json', '-o', 'vg_uuid,lv_name,lv_uuid,lv_size,seg_pe_ranges'];
  const before = await lvm([device], 'lvs', report);
  const label = parseLabel(await readAt(device, 0, 2048));
  const area = label?.metadataAreas[0];
  if (!area) throw new Error('no metadata area');
  // as often as it takes to go round the ring
  const rounds = Math.ceil(area.size / 50_000) + 3;
  for (let round = 0; round < rounds; round++) {
    const header = parseMdaHeader(await readAt(device, area.start, 512), area);
    if (!header.text) throw new Error('no text');
    const pieces = [];
    for (const range of textRanges(header, header.text))
      pieces.push(await readAt(device, range.start, range.size));
    const config = parseConfig(checkText(Buffer.concat(pieces), header.text));
    const group = config.get('daten.vg');
    if (!(group instanceof Map)) throw new Error('no group');
    config.set('description', '"\\ '.repeat(12_500));
    group.set('seqno', Number(group.get('seqno')) + 1);
    const encoded = encodeMetadata(header, encodeConfig(config));
    await writeAt(device, encoded.text);
    await writeAt(device, [encoded.header]);
  }
  await run('blockdev', ['--flushbufs', device]);
  await lvm([device], 'vgck', ['daten.vg']);
  t.is(await lvm([device], 'lvs', report), before);
  const seqno = await lvm([device], 'vgs', ['--noheadings', '-o', 'vg_seqno']);
  t.is(Number(seqno), 2 + rounds);
  t.is((await readVolume(device, 80 * MIB)).group?.seqno, 2 + rounds);
  const dump = await lvm([device], 'pvck', ['--dump', 'headers', device]);
  t.notRegex(dump, /\bCHECK\b|invalid|incorrect|does not match/);
  // and lvm2 goes on from it
  await lvm([device], 'lvextend', ['-q', '-L', '40M', 'daten.vg/root']);
  t.is((await readVolume(device, 80 * MIB)).group?.logical[0]?.segments[0]?.extents, 10);
});
