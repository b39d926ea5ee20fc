// Runs inside the initramfs in place of the agent: what needs device-mapper. Prints facts as JSON lines;
// volumes.test.ts says what they must be.
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { claimDisk } from '../../agent/disk/claim.ts';
import { type Disk, listDisks } from '../../agent/disk/disk.ts';
import { findLeftovers } from '../../agent/disk/leftovers.ts';
import { addPartitions, flushDevice } from '../../agent/disk/partition-nodes.ts';
import { snapshotInMemory } from '../../agent/disk/snapshot.ts';
import { readTable, writeTable } from '../../agent/disk/table.ts';
import { takeDownLeftovers } from '../../agent/disk/take-down.ts';
import { ImagingError } from '../../agent/errors.ts';
import { totalLength } from '../../agent/filesystem/extents.ts';
import { createLog } from '../../agent/log.ts';
import { power } from '../../agent/machine/power.ts';
import { run } from '../../agent/process/run.ts';
import type { Plan } from '../../agent/protocol/index.ts';
import { type LookOptions, lookAtVolumes, type Seen } from '../../agent/volumes/look.ts';
import { openLuks } from '../../agent/volumes/luks.ts';
import { linearRuns } from '../../agent/volumes/lvm/group.ts';
import { growVolumes } from '../../agent/volumes/lvm/grow.ts';
import { findMembers } from '../../agent/volumes/lvm/members.ts';
import { openRuns } from '../../agent/volumes/lvm/node.ts';
import { replayJournal } from '../../agent/volumes/replay.ts';
import type { Volume } from '../../agent/volumes/volume.ts';
import { RECOVERY_PASSWORD } from '../integration/bitlocker-volume.ts';
import { hashOf, partitionOn } from '../integration/loop-device.ts';
import { lvm } from '../integration/lvm.ts';
import { printBitLocker } from './bitlocker-guest.ts';
import { copyExtents, printFact } from './guest.ts';
import { writeTree } from './volumes-disks.ts';

const MIB = 1024 * 1024;
const { signal } = new AbortController();
const KEY = `canary ${randomBytes(9).toString('base64url')}`;

const fact = async (name: string, find: () => Promise<unknown>): Promise<void> =>
  await printFact(name, find, [KEY]);

const disks = new Map((await listDisks()).map((disk) => [disk.serial ?? disk.name, disk]));
const diskOf = (serial: string): Disk => {
  const disk = disks.get(serial);
  if (!disk) throw new Error(`no disk ${serial}`);
  return disk;
};

const look = async (
  volumes: readonly Volume[],
  held: AsyncDisposableStack,
  more: Partial<LookOptions> = {},
): Promise<Seen[]> => await lookAtVolumes(volumes, { signal, keys: [], raw: false, held, ...more });

const summary = ({ method, reason, filesystem, contains, os, source, extents, warnings }: Seen) => ({
  ...{ method, reason, contains, warnings, os: os?.name ?? null, type: filesystem?.type ?? '' },
  replayed: source.startsWith('/dev/mapper/'),
  used: totalLength(extents),
});

/** The files as their own list of sums says they are; how many were right. */
const filesOf = async (device: string, type: string): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'look-'));
  await run('mount', ['-t', type, '-o', type === 'xfs' ? 'ro,nouuid' : 'ro', device, folder]);
  try {
    const { stdout, exitCode } = await run(
      'sh',
      [
        '-c',
        'cd "$1" && sha256sum -c SHA256SUMS 2>&1 | grep -c ": OK$"; test -e late && echo late; true',
        'sh',
        folder,
      ],
      { okExitCodes: [0, 1] },
    );
    return `${stdout.trim().replaceAll('\n', ' ')}${exitCode === 0 ? '' : ' failed'}`;
  } finally {
    await run('umount', [folder]);
    await rmdir(folder);
  }
};

const checks: Record<string, string[]> = {
  ext4: ['e2fsck', '-f', '-n'],
  xfs: ['xfs_repair', '-n'],
  btrfs: ['btrfs', 'check', '--readonly'],
};
const check = async (device: string, type: string): Promise<number> => {
  const [tool = '', ...args] = checks[type] ?? [];
  return (await run(tool, [...args, device], { timeoutMs: 300_000 })).exitCode;
};

/** Everything that a capture could have left behind. */
const leftovers = async (): Promise<string> => {
  const { stdout: mapped } = await run('dmsetup', ['ls']);
  const { stdout: loops } = await run('losetup', ['--list', '--noheadings']);
  const mounts = (await readFile('/proc/mounts', 'utf8'))
    .split('\n')
    .filter((line) => /snapshot-|mount-|replay-/.test(line));
  const files = (await readdir(tmpdir())).filter((name) => /^(snapshot|mount|replay|partclone)-/.test(name));
  // the system's own layers are loop devices too
  const made = loops.split('\n').filter((line) => line !== '' && !line.includes('/layers/'));
  return [mapped.replace('No devices found', '').trim(), ...made, ...mounts, ...files]
    .filter(Boolean)
    .join('; ');
};

let keySeen = 0;
let looked = 0;
let watching = false;
/** The key on a command line or in an environment of any process? */
const watch = async (): Promise<void> => {
  if (watching) return;
  watching = true;
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    for (const file of ['cmdline', 'environ']) {
      const text = await readFile(`/proc/${pid}/${file}`, 'latin1').catch(() => '');
      looked += 1;
      if (text.includes(KEY) || text.includes(RECOVERY_PASSWORD)) keySeen += 1;
    }
  }
  watching = false;
};

const source = diskOf('SRC');
const { partitions } = await readTable(source.path);
const volumes: Volume[] = partitions.map(({ path, size, number }) => partitionOn(path, size, `p${number}`));
const kinds = ['', 'ext4', 'xfs', 'btrfs'];

/** Partition 1 twice as large, the rest as it was, and the table written at the end. */
const GROWN = 300 * MIB;
const planFor = (disk: Disk): Plan => ({
  ...{ image: 'volumes', version: 1, imageDisk: 'd1', table: 'gpt', warnings: [], unused: [] },
  ...{ oldTable: 'removed', extended: null, kept: [], moved: [] },
  disk: { serial: '', wwn: '', size: disk.size, logicalSectorSize: 512 },
  tableId: 'd3b07384-d113-4ec6-a7d4-0123456789ab',
  partitions: partitions.map(({ number, start, size, type, uuid, label, attributes }, at) => ({
    ...{ name: `p${number}`, number, contentSize: size, grow: at === 0, type, uuid, label, attributes },
    ...{ role: 'data' as const, method: 'used' as const, filesystem: '', bootRecord: null },
    start: at === 0 ? start : start + GROWN,
    size: at === 0 ? size + GROWN : size,
  })),
});

const deploy = async () => {
  await using held = new AsyncDisposableStack();
  const looks = await look(volumes, held);
  console.log(`FACT ${JSON.stringify({ name: 'looks', value: looks.map(summary) })}`);
  await using claim = await claimDisk(diskOf('DST'));
  const plan = planFor(claim.disk);
  const nodes = await addPartitions(claim, plan);
  const results: unknown[] = [];
  for (const [at, one] of looks.entries()) {
    const node = nodes.get(`p${at + 1}`) ?? '';
    await copyExtents(one.source, node, one.extents);
    const type = kinds[at] ?? '';
    // what was kept raw lies there as the power cut left it
    if (type && one.source.startsWith('/dev/mapper/'))
      results.push([type, await check(node, type), await filesOf(node, type)]);
  }
  const device = nodes.get('p1') ?? '';
  const grown = await growVolumes({ device, nodes: [device], contains: looks[0]?.contains ?? [], signal });
  await lvm([device], 'vgck', ['vg']);
  const report = [
    '--noheadings',
    '--nosuffix',
    '--units',
    'm',
    '-o',
    'lv_name,lv_size,seg_count',
    '--separator',
    ' ',
  ];
  const lvs = (await lvm([device], 'lvs', report))
    .trim()
    .split('\n')
    .map((line) => line.trim());
  const free = (await lvm([device], 'vgs', ['--noheadings', '-o', 'vg_free_count,pv_count']))
    .trim()
    .replace(/\s+/, ' ');
  const inside: unknown[] = [];
  const member = (await findMembers([{ device, size: plan.partitions[0]?.size ?? 0 }])).get(device);
  for (const lv of member?.group?.logical ?? []) {
    const runs = member?.group ? linearRuns(member.group, lv) : '';
    if (typeof runs === 'string' || lv.name === 'swap') continue;
    await using node = await openRuns(runs, member?.peers ?? new Map(), { writable: false, signal });
    const type = lv.name === 'var' ? 'xfs' : 'ext4';
    const size = Number((await run('blockdev', ['--getsize64', node.path])).stdout);
    inside.push([lv.name, size / MIB, await check(node.path, type), await filesOf(node.path, type)]);
  }
  await flushDevice(device);
  const table = await writeTable(claim, plan);
  return { results, grown, lvs, free, inside, table: table.partitions.length };
};

/** With the drivers or without: the journal's replay itself. */
const replay = async (at: number) => {
  const [volume, type = ''] = [volumes[at], kinds[at]];
  await using snapshot = await snapshotInMemory(volume?.device ?? '', { limit: 96 * MIB });
  await replayJournal(snapshot.path, type, signal);
  await snapshot.assertWhole();
  return [type, await check(snapshot.path, type), await filesOf(snapshot.path, type)];
};

const luks = async (device: string, type: string): Promise<void> => {
  const cheap = ['--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000', '--batch-mode'];
  await run('cryptsetup', ['luksFormat', '--type', type, ...cheap, '--key-file', '-', device], {
    input: KEY,
  });
};

const fillFilesystem = async (device: string): Promise<void> => {
  await run('mkfs.ext4', ['-q', device]);
  const folder = await mkdtemp(join(tmpdir(), 'fill-'));
  await run('mount', [device, folder]);
  await writeTree(folder);
  await run('umount', [folder]);
  await rmdir(folder);
};

/** LUKS 2 with ext4; LUKS 1 with a volume group of one ext4. */
const makeEncrypted = async () => {
  for (const serial of ['LUK2', 'LUK1', 'DST2']) await run('blockdev', ['--setrw', diskOf(serial).path]);
  const [two, one] = [diskOf('LUK2').path, diskOf('LUK1').path];
  await luks(two, 'luks2');
  await luks(one, 'luks1');
  {
    await using opened = await openLuks(two, ['wrong', KEY], { writable: true, signal });
    await fillFilesystem(opened.path);
  }
  {
    await using opened = await openLuks(one, [KEY], { writable: true, signal });
    await lvm([opened.path], 'pvcreate', ['-q', opened.path]);
    await lvm([opened.path], 'vgcreate', ['-q', 'hidden', opened.path]);
    await lvm([opened.path], 'lvcreate', ['-q', '-an', '-Zn', '-Wn', '-n', 'root', '-L', '40M', 'hidden']);
    await withRoot(opened, true, fillFilesystem);
  }
  for (const path of [two, one]) {
    await flushDevice(path);
    await run('blockdev', ['--setro', path]);
  }
  return await Promise.all([hashOf(two), hashOf(one)]);
};

const withRoot = async (
  { path, size }: { path: string; size: number },
  writable: boolean,
  work: (device: string) => Promise<void>,
): Promise<void> => {
  const member = (await findMembers([{ device: path, size }])).get(path);
  const lv = member?.group?.logical[0];
  const runs = member?.group && lv ? linearRuns(member.group, lv) : '';
  if (typeof runs === 'string') throw new Error(`no runs: ${runs}`);
  await using node = await openRuns(runs, member?.peers ?? new Map(), { writable, signal });
  await work(node.path);
};

const encrypted: Volume[] = ['LUK2', 'LUK1'].map((serial) => {
  const { path, size } = diskOf(serial);
  return partitionOn(path, size, serial);
});

const copyEncrypted = async () => {
  await using held = new AsyncDisposableStack();
  const looks = await look(encrypted, held, { keys: ['not this one', KEY] });
  const target = diskOf('DST2').path;
  const results: unknown[] = [];
  for (const one of looks) {
    await run('dd', ['if=/dev/zero', `of=${target}`, 'bs=4M', 'count=40', 'status=none'], {
      okExitCodes: [0, 1],
    });
    await copyExtents(one.source, target, one.extents);
    await using opened = await openLuks(target, [KEY], { writable: false, signal });
    const judge = async (device: string) =>
      void results.push([await check(device, 'ext4'), await filesOf(device, 'ext4')]);
    if (one.contains.length === 1) await judge(opened.path);
    else await withRoot(opened, false, judge);
  }
  // what is on the target is ciphertext: nothing of the filesystem shows
  const { stdout } = await run('sh', ['-c', 'head -c 100M "$1" | grep -c -a SHA256SUMS', 'sh', target], {
    okExitCodes: [0, 1],
  });
  return { looks: looks.map(summary), results, clear: Number(stdout.trim()) };
};

/** An agent that is killed in the middle of a capture, and the task after it. */
const killed = async () => {
  const paths = [volumes[1]?.device ?? '', diskOf('LUK2').path];
  const program = join(import.meta.dirname, 'killed.mjs');
  const child = spawn(process.execPath, [program, ...paths], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.end(KEY);
  const ended = once(child, 'exit');
  await Promise.race([once(createInterface({ input: child.stdout }), 'line'), ended]);
  const alive = (await findLeftovers()).length;
  child.kill('SIGKILL');
  await ended;
  const left = (await findLeftovers()).map(({ kind }) => kind);
  const lines: string[] = [];
  const claim = async () => await (await claimDisk(diskOf('LUK2'))).release();
  const refusal = await claim().catch((error: Error) => error.message);
  await takeDownLeftovers(createLog({ toConsole: (line) => lines.push(line) }));
  const after = await leftovers();
  await using held = new AsyncDisposableStack();
  const looks = await look([...volumes.slice(1, 2), ...encrypted], held, { keys: [KEY] });
  await claim();
  return { alive, left, refusal, lines, after, methods: looks.map(({ method }) => method) };
};

await fact('deploy', deploy);
await fact('after deploy', leftovers);
await fact('replay xfs', async () => await replay(2));
await fact('replay btrfs', async () => await replay(3));
await fact('too little memory', async () => {
  await using held = new AsyncDisposableStack();
  const ext4 = volumes.slice(1, 2);
  const [none] = await look(ext4, held, { memory: 3 * MIB });
  return none && summary(none);
});
await fact('overflow', async () => {
  await using snapshot = await snapshotInMemory(volumes[1]?.device ?? '', { limit: 4 * MIB });
  await run('dd', ['if=/dev/zero', `of=${snapshot.path}`, 'bs=1M', 'count=12', 'conv=fsync', 'status=none'], {
    okExitCodes: [0, 1],
  });
  await snapshot.assertWhole();
});
await fact('cancelled', async () => {
  const controller = new AbortController();
  await using held = new AsyncDisposableStack();
  // in the middle: the snapshot stands, the replay on it begins
  const waiting = setInterval(async () => {
    if ((await readdir('/sys/block')).some((name) => name.startsWith('dm-'))) {
      controller.abort(new ImagingError('TASK_CANCELLED', 'Cannot go on: enough'));
    }
  }, 10);
  try {
    return (await look(volumes.slice(1, 2), held, { signal: controller.signal })).length;
  } finally {
    clearInterval(waiting);
  }
});
await fact('after cancel', leftovers);
const watcher = setInterval(watch, 50);
await fact('make encrypted', makeEncrypted);
await fact('no key', async () => {
  await using held = new AsyncDisposableStack();
  return (await look(encrypted, held)).map(summary);
});
await fact('wrong key', async () => {
  await using held = new AsyncDisposableStack();
  return (await look(encrypted, held, { keys: ['not this one'] })).map(summary);
});
await fact('with key', copyEncrypted);
await fact('encrypted hashes', async () => await Promise.all(encrypted.map(({ device }) => hashOf(device))));
await fact('killed', killed);
await printBitLocker(async (device) => await filesOf(device, 'ntfs3'));
await fact('after all', leftovers);
await fact('key seen', async () => ({ keySeen, looked }));
clearInterval(watcher);
await power('poweroff');
