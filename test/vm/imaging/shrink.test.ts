import { mkdir, open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { run } from '../../../agent/process/run.ts';
import type { ImageAnswer, TaskAnswer } from '../../../server-stub/api.ts';
import { openState } from '../../../server-stub/state.ts';
import {
  makeExt4,
  makeFat,
  makeTree,
  storeImage,
  treeHashes,
  withLoop,
} from '../../integration/shrink-helpers.ts';
import { type Bench, createBench, createCleanups, MIB } from './bench.ts';

/** a 3 GB disk whose content needs a tenth of that, and machines with a third of it */
const SOURCE = { esp: 64 * MIB, ext4: 2800 * MIB };
const TARGET = 1200 * MIB;
const FILES = 100 * MIB;
const WAIT = { timeoutMs: 300_000 };

const cleanups = createCleanups();
let bench: Bench;
let folder: string;
let hashes: string;

test.before(async () => {
  bench = await createBench(cleanups);
  folder = join(bench.folder, 'parts');
  await mkdir(folder);
  const tree = await makeTree(join(folder, 'tree'), FILES);
  hashes = await treeHashes(tree);
  const parts = [await makeFat(folder, SOURCE.esp), await makeExt4(folder, SOURCE.ext4, tree)];
  // as a capture leaves it, without the minute that one takes
  await bench.killServer();
  const state = await openState({ data: bench.data });
  await storeImage(state, 'lab', parts);
  await state.close();
  await bench.startServer();
});
test.after.always(cleanups.run);

const deployTo = async (name: string, mac: string, size: number) => {
  const file = join(bench.folder, `${name}.img`);
  await run('truncate', ['-s', String(size), file]);
  await bench.addHost(name, mac);
  const id = await bench.addTask(name, 'deploy', { image: 'lab' });
  const steps = new Set<string>();
  const machine = await bench.startAgent(mac, { disks: [{ file, serial: name.toUpperCase() }] });
  const watch = setInterval(() => {
    void bench.task(id).then(
      ({ progress }: TaskAnswer) => progress && steps.add(progress.step),
      () => undefined,
    );
  }, 200);
  const { disks } = await machine.waitForExit(WAIT);
  clearInterval(watch);
  return { file, steps, writes: disks[0]?.writes, ...(await bench.ended(id)) };
};

test.serial(
  'a smaller disk gets a smaller version, made once: the second machine starts at once',
  async (t) => {
    for (const [name, mac, size] of [
      ['first', '52:54:00:00:20:01', TARGET],
      // another maker's disk of the same class
      ['second', '52:54:00:00:20:02', TARGET + 16 * 512],
    ] as const) {
      const { file, result, steps } = await deployTo(name, mac, size);
      t.is(result.outcome, 'succeeded', JSON.stringify(result.error));
      t.deepEqual(result.image, { name: 'lab', version: 2, derivedFrom: 1 });
      t.regex(result.summary, /lab version 2, made from 1 for smaller disks/);
      t.is(steps.has('wait-for-smaller-version'), name === 'first', [...steps].join(' '));

      t.is((await stat(file)).size, size);
      await run('sgdisk', ['--verify', file]);
      const { stdout } = await run('sfdisk', ['--json', file]);
      const [esp, root] = JSON.parse(stdout).partitiontable.partitions;
      t.is(esp.size * 512, SOURCE.esp);
      const end = (root.start + root.size) * 512;
      t.true(end <= size && end > size - 4 * MIB, 'the filesystem grew to the end of this disk');
      const part = join(bench.folder, `${name}-p2.img`);
      await copyRange(file, root.start * 512, root.size * 512, part);
      await run('e2fsck', ['-f', '-n', part]);
      t.is(await withLoop(part, bench.folder, treeHashes, 'loop,ro,noload'), hashes);
    }
    const { versions } = await bench.api.get<ImageAnswer>('/api/images/lab');
    t.deepEqual(
      versions.map(({ version, derivedFrom }) => [version, derivedFrom]),
      [
        [2, 1],
        [1, null],
      ],
    );
  },
);

const copyRange = async (from: string, start: number, size: number, to: string): Promise<void> => {
  const range = [`skip=${start}`, `count=${size}`, 'iflag=skip_bytes,count_bytes'];
  await run('dd', [`if=${from}`, `of=${to}`, 'bs=1M', ...range, 'conv=sparse', 'status=none']);
  await using file = await open(to, 'r+');
  await file.truncate(size);
};
