import { join } from 'node:path';
import test from 'ava';
import { decodeCaibx } from '../../agent/image/caibx.ts';
import { captureRange } from '../../agent/image/capture.ts';
import { chunkId } from '../../agent/image/codec.ts';
import { deployRange } from '../../agent/image/deploy.ts';
import type { JobKind, Jobs } from '../../agent/image/job.ts';
import { openLocalStore } from '../../agent/image/local-store.ts';
import type { ChunkPool } from '../../agent/image/pool.ts';
import { readBack } from '../../agent/image/verify.ts';
import { folderOf, loopDevice, MIB, makeExt4, poolOf, usedExtents } from './image-helpers.ts';

const CHUNK = 256 * 1024;
const SIZE = 64 * MIB;

interface Access {
  kind: 'read' | 'write';
  position: number;
}

/**
 * The pool, noting where on the device its jobs read and write, in the order in which they were begun, and how many are
 * under way at the same time. A job's own accesses go from its first position on.
 */
const watched = (pool: ChunkPool) => {
  const accesses: Access[] = [];
  const state = { open: 0, most: 0 };
  const run: ChunkPool['run'] = async <K extends JobKind>(kind: K, job: Jobs[K]['job']) => {
    const isDisk = kind === 'hash' || kind === 'write';
    if (kind === 'hash') accesses.push({ kind: 'read', position: (job as Jobs['hash']['job']).position });
    if (kind === 'write') {
      for (const position of (job as Jobs['write']['job']).positions) {
        accesses.push({ kind: 'write', position });
      }
    }
    if (isDisk) state.open += 1;
    state.most = Math.max(state.most, state.open);
    try {
      return await pool.run(kind, job);
    } finally {
      if (isDisk) state.open -= 1;
    }
  };
  return { pool: { ...pool, run }, accesses, state };
};

const zero = chunkId(new Uint8Array(CHUNK));
const isZero = (id: string | undefined): boolean => id === zero;

const isAscending = (accesses: readonly Access[]): boolean =>
  accesses.every(({ position }, at) => at === 0 || position > (accesses[at - 1]?.position ?? 0));

test('on a disk that turns, capture, deploy and read-back are one ordered stream each', async (t) => {
  const folder = await folderOf(t);
  const source = await loopDevice(t, join(folder, 'source'), SIZE);
  await makeExt4(source, folder);
  const target = await loopDevice(t, join(folder, 'target'), SIZE);
  const extents = await usedExtents(source, folder);
  const pool = poolOf(t);
  const store = openLocalStore(join(folder, 'chunks'), pool);

  const capturing = watched(pool);
  const range = { device: source, start: 0, size: SIZE, extents, chunkSize: CHUNK, level: 1 };
  const { index, map } = await captureRange({
    ...range,
    sink: store,
    pool: capturing.pool,
    rotational: true,
  });
  t.true(capturing.accesses.length > 20);
  t.true(isAscending(capturing.accesses), 'reads go forward');
  t.is(capturing.state.most, 1, 'one read at a time');

  const deploying = watched(pool);
  const image = { start: 0, index, map, chunkSize: CHUNK };
  // over a wire: the order in which chunks come is the order in which they are asked for
  const wire = { fetch: store.fetch };
  await deployRange({
    ...image,
    ...{ device: target, source: wire, pool: deploying.pool, rotational: true, compare: 'none' },
  });
  const writes = deploying.accesses.filter(({ kind }) => kind === 'write');
  // a chunk that occurs twice is fetched once: its further places are written along with its first, ahead of their turn
  const ids = decodeCaibx(index).ids;
  const forward = writes.filter(
    ({ position }) =>
      ids.indexOf(ids[position / CHUNK] ?? '') === position / CHUNK || isZero(ids[position / CHUNK]),
  );
  t.true(forward.length > 20);
  t.true(isAscending(forward), 'writes go forward');
  t.true(forward.length >= writes.length * 0.9, `${forward.length} of ${writes.length}`);
  t.true(deploying.state.most <= pool.workers * 2, 'near each other');

  const reading = watched(pool);
  await readBack({ ...image, device: target, mode: 'full', pool: reading.pool, rotational: true });
  t.true(isAscending(reading.accesses));
  t.is(reading.state.most, 1);
});
