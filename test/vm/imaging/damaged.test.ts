import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { decodeCaibx } from '../../../agent/image/caibx.ts';
import { run } from '../../../agent/process/run.ts';
import type { ImageAnswer } from '../../../server-stub/api.ts';
import { createBench, MIB, makeSmallDisk } from './bench.ts';

const SOURCE = '52:54:00:00:30:01';
const TARGET = '52:54:00:00:30:02';

test('one flipped bit in the store: the deploy ends with CHUNK_CORRUPT before that chunk is written, and the server knows the version as hurt', async (t) => {
  const bench = await createBench(t);
  await bench.addHost('source', SOURCE);
  await bench.addHost('target', TARGET);
  const source = await makeSmallDisk(bench.folder, 40 * MIB);
  const captured = await bench.addTask('source', 'capture', { image: 'small' });
  await (await bench.startAgent(SOURCE, { disks: [{ file: source.file, serial: 'SRC' }] })).waitForExit();
  t.is((await bench.ended(captured)).task.state, 'succeeded');

  const index = await readFile(join(bench.data, 'images/small/1/p1.caibx'));
  const { ids } = decodeCaibx(index);
  // in the middle of the files: not zero, and once
  const number = ids.findIndex((id, at) => at > 20 && ids.indexOf(id) === ids.lastIndexOf(id));
  const id = ids[number] ?? '';
  const chunk = join(bench.data, 'chunks', id.slice(0, 4), `${id}.cacnk`);
  const frame = await readFile(chunk);
  frame[frame.length >> 1] = (frame[frame.length >> 1] ?? 0) ^ 1;
  await writeFile(chunk, frame);

  const target = join(bench.folder, 'target.img');
  await run('truncate', ['-s', String(source.size), target]);
  const deploying = await bench.addTask('target', 'deploy', { image: 'small' });
  await (await bench.startAgent(TARGET, { disks: [{ file: target, serial: 'DST' }] })).waitForExit();
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
});
