import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { decodeCaibx } from '../../../agent/image/caibx.ts';
import { run } from '../../../agent/process/run.ts';
import type { ImageAnswer } from '../../../server-stub/api.ts';
import { type Bench, createBench, createCleanups, MIB, makeSmallDisk, type SmallDisk } from './bench.ts';

const macs = {
  source: '52:54:00:00:10:01',
  two: '52:54:00:00:10:02',
  small: '52:54:00:00:10:03',
  uefi: '52:54:00:00:10:04',
  target: '52:54:00:00:10:05',
};

const WAIT = { timeoutMs: 300_000 };
const TOO_SMALL = 40 * MIB;

const cleanups = createCleanups();
let bench: Bench;
let source: SmallDisk;

const blank = async (name: string, size: number): Promise<string> => {
  const file = join(bench.folder, name);
  await run('truncate', ['-s', String(size), file]);
  return file;
};

test.before(async () => {
  bench = await createBench(cleanups);
  source = await makeSmallDisk(bench.folder, 40 * MIB);
});
test.after.always(cleanups.run);

test.serial('a capture writes nothing to its source', async (t) => {
  await bench.addHost('source', macs.source);
  const id = await bench.addTask('source', 'capture', { image: 'small' });
  const machine = await bench.startAgent(macs.source, { disks: [{ file: source.file, serial: 'SRC' }] });
  const { disks } = await machine.waitForExit(WAIT);
  const { result } = await bench.ended(id);
  t.is(result.outcome, 'succeeded', JSON.stringify(result.error));
  t.is(disks[0]?.writes, 0);
});

test.serial('what must be refused is refused with its code, and no disk sees a write', async (t) => {
  const refusals = [
    {
      name: 'two',
      code: 'DISK_AMBIGUOUS',
      disks: [
        { file: await blank('a.img', source.size), serial: 'A' },
        { file: await blank('b.img', source.size), serial: 'B' },
      ],
    },
    {
      name: 'small',
      code: 'TARGET_TOO_SMALL',
      // 40 MiB of random files need more, however small the server makes their filesystem
      disks: [{ file: await blank('c.img', TOO_SMALL), serial: 'C' }],
    },
    {
      name: 'uefi',
      code: 'FIRMWARE_MISMATCH',
      disks: [{ file: await blank('d.img', source.size), serial: 'D' }],
      firmware: 'uefi' as const,
    },
  ] as const;
  for (const { name, code, disks, ...options } of refusals) {
    await bench.addHost(name, macs[name]);
    const id = await bench.addTask(name, 'deploy', { image: 'small' });
    const machine = await bench.startAgent(macs[name], { disks: [...disks], ...options });
    const exit = await machine.waitForExit(WAIT);
    const { task, result } = await bench.ended(id);
    t.is(task.state, 'failed', name);
    t.is(result.error?.code, code);
    t.deepEqual(
      exit.disks.map(({ writes }) => writes),
      disks.map(() => 0),
      `${code}: 0 write operations`,
    );
    if (code === 'TARGET_TOO_SMALL') {
      const { neededBytes, availableBytes } = result.error?.details ?? {};
      t.is(availableBytes, TOO_SMALL);
      t.true(Number(neededBytes) > 40 * MIB && Number(neededBytes) < source.size);
      t.regex(result.error?.message ?? '', /p1 needs \d+ bytes/);
      t.is((await bench.api.get<ImageAnswer>('/api/images/small')).versions.length, 1, 'and nothing is made');
    }
  }
});

test.serial(
  'one flipped bit in the store: the deploy ends with CHUNK_CORRUPT before that chunk is written, and the server knows the version as hurt',
  async (t) => {
    await bench.addHost('target', macs.target);
    const index = await readFile(join(bench.data, 'images/small/1/p1.caibx'));
    const { ids } = decodeCaibx(index);
    // in the middle of the files: not zero, and once
    const number = ids.findIndex((id, at) => at > 20 && ids.indexOf(id) === ids.lastIndexOf(id));
    const id = ids[number] ?? '';
    const chunk = join(bench.data, 'chunks', id.slice(0, 4), `${id}.cacnk`);
    const frame = await readFile(chunk);
    frame[frame.length >> 1] = (frame[frame.length >> 1] ?? 0) ^ 1;
    await writeFile(chunk, frame);

    const target = await blank('target.img', source.size);
    const deploying = await bench.addTask('target', 'deploy', { image: 'small' });
    const machine = await bench.startAgent(macs.target, { disks: [{ file: target, serial: 'DST' }] });
    await machine.waitForExit(WAIT);
    const { task, result } = await bench.ended(deploying);
    t.is(task.state, 'failed');
    t.is(result.error?.code, 'CHUNK_CORRUPT');
    t.is(result.error?.details['id'], id);
    t.is(result.error?.details['partition'], 'p1');

    await using file = await open(target, 'r');
    const place = Buffer.alloc(MIB, 0xee);
    await file.read(place, 0, MIB, source.partition.start + number * MIB);
    t.true(
      place.every((byte) => byte === 0),
      'the blank disk is blank there',
    );
    const { versions } = await bench.api.get<ImageAnswer>('/api/images/small');
    t.deepEqual(versions[0]?.hurt, [id]);
  },
);
