import { mkdir, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { decodeMap } from '../../../agent/image/used-map.ts';
import { run } from '../../../agent/process/run.ts';
import type { ImagePartition, TaskResult, TaskSecrets } from '../../../agent/protocol/index.ts';
import { type Facts, startSystem } from '../../../scripts/lib/system/start.ts';
import type { ImageAnswer } from '../../../server-stub/api.ts';
import { type Bench, createBench, createCleanups, MIB } from './bench.ts';
import { makeLargeDisk, makeLuksDisk, makeLvmDisk } from './root-disks.ts';
import { hashOfSparse } from './sparse-hash.ts';

// A real Debian on what installers make: captured, deployed to another disk, and started from that by its BIOS
// until it has checked every file and asks for a login.

const MATRIX = process.env['FOG_TEST_MATRIX'] === '1';
/** plain bytes of files that do not compress, on the disk of 40 GB */
const LARGE_FILES = MATRIX ? 5_700_000_000 : 400_000_000;
const SMALL_DISK = 10_000_000_000;
const TASK_MS = 20 * 60_000;
/** since the last assertion; 6 GB through an emulated machine take a while */
const TEST_MS = 40 * 60_000;

const cleanups = createCleanups();
let bench: Bench;
let folder: string;

test.before(async () => {
  bench = await createBench(cleanups);
  folder = join(bench.folder, 'disks');
  await mkdir(folder);
});
test.after.always(cleanups.run);

interface Imaging {
  image: string;
  file: string;
  mac: string;
  secrets?: TaskSecrets;
}

/** One machine that does this and powers off. `waited`: for a smaller version of the image. */
const imaging = async (
  t: ExecutionContext,
  type: 'capture' | 'deploy',
  { image, file, mac, secrets }: Imaging,
): Promise<TaskResult & { waited: boolean }> => {
  const host = `${image}-${mac.slice(-2)}`;
  await bench.addHost(host, mac);
  const id = await bench.addTask(host, type, { image }, 'poweroff', secrets);
  const began = performance.now();
  const machine = await bench.startAgent(mac, { disks: [{ file, serial: host.toUpperCase() }] });
  try {
    await machine.waitForExit({ timeoutMs: TASK_MS });
  } finally {
    if (process.env['FOG_TEST_PRINT']) console.log(machine.console());
    await machine.kill();
  }
  const { result } = await bench.ended(id);
  t.is(result.outcome, 'succeeded', JSON.stringify(result.error));
  const { bytesUsed = 0, seconds = 0 } = result.stats ?? {};
  t.log(`${type} ${host}: ${secondsSince(began)} s; ${bytesUsed} bytes in ${seconds.toFixed(0)} s`);
  const log = await bench.api.text(`/api/tasks/${id}/log?format=text`);
  return { ...result, waited: log.includes('wait-for-smaller-version') };
};

/** The image's partitions. The source must be what it was. */
const capture = async (t: ExecutionContext, options: Imaging): Promise<ImagePartition[]> => {
  const before = await hashOfSparse(options.file);
  await imaging(t, 'capture', options);
  t.is(await hashOfSparse(options.file), before, 'the capture wrote to its source');
  return (await bench.manifest(options.image, 1)).disks[0]?.partitions ?? [];
};

const start = async (t: ExecutionContext, file: string, passphrase?: string): Promise<Facts> => {
  const began = performance.now();
  const facts = await startSystem({ disks: [{ file }], ...(passphrase ? { passphrase } : {}) });
  t.log(`start: ${secondsSince(began)} s`);
  t.like(facts, { hashes: 'ok', firmware: 'bios' });
  t.true(facts.files > 4000 && facts.swap > 0, JSON.stringify(facts));
  return facts;
};

const blankDisk = async (name: string, size: number): Promise<string> => {
  const file = join(folder, `${name}.img`);
  await using handle = await open(file, 'wx');
  await handle.truncate(size);
  return file;
};

test.serial(
  'a Debian whose root is a logical volume starts from a larger disk, its root grown',
  async (t) => {
    t.timeout(TEST_MS);
    const { file, size } = await makeLvmDisk(folder);
    const [, boot, member] = await capture(t, { image: 'lvm', file, mac: '52:54:00:00:40:01' });
    t.like(member, { method: 'used', role: 'os' });
    t.deepEqual(
      member?.contains.map(({ name, method }) => [name, method]),
      [
        ['golden/root', 'used'],
        ['golden/swap', 'used'],
      ],
    );

    const target = await blankDisk('lvm-target', 2 * size);
    const { evidence } = await imaging(t, 'deploy', { image: 'lvm', file: target, mac: '52:54:00:00:40:02' });
    t.true(evidence.some(({ what }) => what === 'golden/root fills its volume group'));
    const facts = await start(t, target);
    t.is(facts.stack, 'lvm/part/disk');
    // /boot grows too: each by its share
    const [bootSize, memberSize] = [boot?.size ?? 0, member?.size ?? 0];
    const share = (size * memberSize) / (bootSize + memberSize);
    const grown = facts.root - (member?.contains[0]?.size ?? 0);
    t.true(grown > 0.95 * share, `the root filesystem grew by ${grown}, its share of the room is ${share}`);

    if (!MATRIX) return;
    const smaller = await blankDisk('lvm-smaller', size - 200 * MIB);
    const derived = await imaging(t, 'deploy', { image: 'lvm', file: smaller, mac: '52:54:00:00:40:03' });
    t.deepEqual(derived.image, { name: 'lvm', version: 2, derivedFrom: 1 });
    const shrunk = await start(t, smaller);
    t.is(shrunk.stack, 'lvm/part/disk');
    t.true(shrunk.root < (member?.contains[0]?.size ?? 0), `its root is ${shrunk.root}`);
  },
);

test.serial('a Debian on encrypted LVM starts from a larger disk with its passphrase', async (t) => {
  t.timeout(TEST_MS);
  const { file, size, passphrase } = await makeLuksDisk(folder);
  // the maker's own proof; what is deployed checks the same sums
  const installed = MATRIX ? await start(t, file, passphrase) : null;

  const secrets = { unlock: [passphrase] };
  const [, , luks] = await capture(t, { image: 'luks', file, mac: '52:54:00:00:41:01', secrets });
  t.like(luks, { method: 'used', role: 'os' });
  t.deepEqual(
    luks?.contains.map(({ kind, method }) => [kind, method]),
    [
      ['luks', 'used'],
      ['lvm', 'used'],
      ['lvm', 'used'],
    ],
  );
  const used = luks?.filesystem?.usedBytes ?? 0;
  t.true(used > 200 * MIB && used < (luks?.size ?? 0) / 2, `${used} bytes of ciphertext`);

  const target = await blankDisk('luks-target', 2 * size);
  await imaging(t, 'deploy', { image: 'luks', file: target, mac: '52:54:00:00:41:02' });
  const deployed = await start(t, target, passphrase);
  t.is(deployed.stack, 'lvm/crypt/part/disk');
  if (installed) t.deepEqual(deployed, installed, 'it is the system that was captured');
});

test.serial(
  'a disk of 40 GB goes onto one of 10 GB, which starts; the next such machine waits for nothing',
  async (t) => {
    t.timeout(TEST_MS);
    const { file } = await makeLargeDisk(folder, LARGE_FILES);
    const captured = await capture(t, { image: 'large', file, mac: '52:54:00:00:42:01' });
    await rm(file);
    const last = await lastUsedByte(captured);
    t.true(last > 2 * SMALL_DISK, `what is used lies far beyond the end of the smaller disk: ${last}`);

    for (const [name, mac] of [
      ['first', '52:54:00:00:42:02'],
      ['second', '52:54:00:00:42:03'],
    ] as const) {
      const target = await blankDisk(name, SMALL_DISK);
      const { image, waited } = await imaging(t, 'deploy', { image: 'large', file: target, mac });
      t.deepEqual(image, { name: 'large', version: 2, derivedFrom: 1 });
      t.is(waited, name === 'first');
      t.true((await endOfPartitions(target)) > SMALL_DISK - 4 * MIB, 'the root fills the disk');
      if (name === 'first') {
        const facts = await start(t, target);
        t.is(facts.stack, 'part/disk');
        t.true(facts.root > 0.85 * SMALL_DISK && facts.root < SMALL_DISK, `a root of ${facts.root}`);
      }
      await rm(target);
    }
    const { versions } = await bench.api.get<ImageAnswer>('/api/images/large');
    t.deepEqual(
      versions.map(({ version, derivedFrom }) => [version, derivedFrom]),
      [
        [2, 1],
        [1, null],
      ],
    );
  },
);

/** On the disk that was captured. */
const lastUsedByte = async (partitions: readonly ImagePartition[]): Promise<number> => {
  let last = 0;
  for (const { start, map } of partitions) {
    if (!map) continue;
    const { extents } = decodeMap(await readFile(join(bench.data, 'images/large/1', map.name)));
    const { offset = 0, length = 0 } = extents.at(-1) ?? {};
    last = Math.max(last, start + offset + length);
  }
  return last;
};

const endOfPartitions = async (file: string): Promise<number> => {
  const { stdout } = await run('sfdisk', ['--json', file]);
  const { start, size } = JSON.parse(stdout).partitiontable.partitions.at(-1);
  return (start + size) * 512;
};

const secondsSince = (began: number): string => ((performance.now() - began) / 1000).toFixed(0);
