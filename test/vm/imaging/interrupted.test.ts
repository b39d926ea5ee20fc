import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { run } from '../../../agent/process/run.ts';
import {
  attachForgetful,
  type Bench,
  createBench,
  createCleanups,
  filesOf,
  MIB,
  makeSmallDisk,
  type SmallDisk,
} from './bench.ts';

const SOURCE = '52:54:00:00:20:01';
const TARGET = '52:54:00:00:20:02';
const CONTENT = 200 * MIB;
/** bytes a second of a slowed disk: a transfer then takes long enough to be cut where it is meant to be */
const RATE = 16 * MIB;
const WAIT = { timeoutMs: 400_000 };

/** The matrix cuts both at 20, 50 and 80 %; the fixed list takes the ends for a deploy, the middle for a capture. */
const matrix = process.env['FOG_TEST_MATRIX'] === '1';
const deployCuts = matrix ? [0.2, 0.5, 0.8] : [0.2, 0.8];
const captureCuts = matrix ? [0.2, 0.5, 0.8] : [0.5];

/** What a second attempt may transfer of `total` plain bytes: the rest, a chunk for each of two workers, 2 %. */
const allowed = (total: number, share: number): number => (1 - share) * total + 2 * MIB + total * 0.02;

const cleanups = createCleanups();
let bench: Bench;
/** the last disk that was captured, and the image that it became: what is deployed */
let captured: { disk: SmallDisk; image: string };

test.before(async () => {
  bench = await createBench(cleanups);
  await bench.addHost('source', SOURCE);
  await bench.addHost('target', TARGET);
});
test.after.always(cleanups.run);

const newDisk = async (name: string): Promise<SmallDisk> => {
  const folder = join(bench.folder, name);
  await mkdir(folder);
  return makeSmallDisk(folder, CONTENT);
};

const blankFor = async (disk: SmallDisk, name: string): Promise<string> => {
  const file = join(bench.folder, name);
  await run('truncate', ['-s', String(disk.size), file]);
  return file;
};

for (const cut of captureCuts) {
  test.serial(
    `a capture whose machine loses power at ${cut * 100} % sends only the rest at its next boot`,
    async (t) => {
      const image = `cut-${cut * 100}`;
      const disk = await newDisk(image);
      const id = await bench.addTask('source', 'capture', { image });
      const slow = await attachForgetful(t, disk.file, RATE);
      const first = await bench.startAgent(SOURCE, { disks: [{ file: slow.file, serial: 'SRC' }] });
      const share = await bench.reached(id, 'transfer', cut);
      await first.kill();
      await slow.cutPower();

      const again = await bench.startAgent(SOURCE, { disks: [{ file: disk.file, serial: 'SRC' }] });
      await again.waitForExit(WAIT);
      const { result } = await bench.ended(id);
      t.is(result.outcome, 'succeeded', JSON.stringify(result.error));
      t.is(result.attempt, 2);
      const { bytesSent: sent = 0, bytesUsed: total = 0 } = result.stats ?? {};
      t.true(
        sent <= allowed(total, share),
        `cut at ${share}: sent ${sent} of ${total}, allowed ${allowed(total, share)}`,
      );
      captured = { disk, image };
    },
  );
}

for (const cut of deployCuts) {
  test.serial(
    `a deploy whose machine loses power at ${cut * 100} % fetches only the rest at its next boot`,
    async (t) => {
      const { disk, image } = captured;
      const target = await blankFor(disk, `target-${cut * 100}.img`);
      const id = await bench.addTask('target', 'deploy', { image });
      const slow = await attachForgetful(t, target, RATE);
      const first = await bench.startAgent(TARGET, { disks: [{ file: slow.file, serial: 'DST' }] });
      const share = await bench.reached(id, 'transfer', cut);
      await first.kill();
      await slow.cutPower();

      const again = await bench.startAgent(TARGET, { disks: [{ file: target, serial: 'DST' }] });
      await again.waitForExit(WAIT);
      const { result } = await bench.ended(id);
      t.is(result.outcome, 'succeeded', JSON.stringify(result.error));
      t.is(result.attempt, 2);
      // progress counts plain bytes, so the rest is counted in them too: what was fetched is what was written
      const { bytesWritten: fetched = 0, bytesUsed: total = 0 } = result.stats ?? {};
      t.true(
        fetched <= allowed(total, share),
        `cut at ${share}: fetched ${fetched} of ${total}, allowed ${allowed(total, share)}`,
      );
      const { start } = disk.partition;
      t.is(await filesOf(target, start), await filesOf(disk.file, start), 'every file is the source’s');
    },
  );
}

test.serial(
  'a server that is killed in the middle of a capture and of a deploy is waited for, and both finish',
  async (t) => {
    const disk = await newDisk('waits');
    const target = await blankFor(disk, 'waits.img');
    for (const [host, mac, type, file] of [
      ['source', SOURCE, 'capture', disk.file],
      ['target', TARGET, 'deploy', target],
    ] as const) {
      const id = await bench.addTask(host, type, { image: 'waits' });
      const slow = await attachForgetful(t, file, RATE);
      const machine = await bench.startAgent(mac, { disks: [{ file: slow.file, serial: host }] });
      await bench.reached(id, 'transfer', 0.4);
      await bench.killServer();
      await sleep(5000);
      await bench.startServer();
      await machine.waitForExit(WAIT);
      const { result } = await bench.ended(id);
      t.is(result.outcome, 'succeeded', JSON.stringify(result.error));
      t.is(result.attempt, 1, `the ${type} was not begun anew`);
      await slow.close();
    }
    const { start } = disk.partition;
    t.is(await filesOf(target, start), await filesOf(disk.file, start));
  },
);

test.serial(
  'a cancelled capture ends within seconds, its tools with it, and the machine says so',
  async (t) => {
    const disk = await newDisk('never');
    const id = await bench.addTask('source', 'capture', { image: 'never' });
    const slow = await attachForgetful(t, disk.file, RATE / 4);
    const machine = await bench.startAgent(SOURCE, { disks: [{ file: slow.file, serial: 'SRC' }] });
    await bench.reached(id, 'transfer', 0.1);
    await bench.api.post(`/api/tasks/${id}/cancel`);
    const { task, result } = await bench.ended(id);
    t.is(task.state, 'cancelled');
    t.is(result.error?.code, 'TASK_CANCELLED');
    await t.throwsAsync(bench.api.get('/api/images/never'), undefined, 'no version of a cancelled capture');
    await machine.waitForExit(WAIT);
  },
);
