import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { openDevice } from '../../../agent/image/device.ts';
import { createPool } from '../../../agent/image/pool.ts';
import { run } from '../../../agent/process/run.ts';
import { BLOCK, compare, overwrite } from '../../../agent/wipe/pass.ts';
import { planPasses } from '../../../agent/wipe/plan.ts';
import { attach, detach, sparseFile } from './image-disk.ts';
import { timed } from './peer.ts';
import { pairedRow, type Row, soloRow } from './report.ts';

const MIB = 1024 * 1024;

/**
 * One random pass over a loop device in RAM against nwipe and shred, in turns; all three end when the data is flushed, and none
 * of them reads back: that is a row of its own.
 */
export const benchWipe = async ({ size, runs }: { size: number; runs: number }): Promise<Row[]> => {
  const folder = await mkdtemp('/dev/shm/bench-');
  const file = join(folder, 'disk');
  await sparseFile(file, size * MIB);
  const path = await attach(file);
  try {
    console.log(`wipe: ${size} MiB, ${runs} runs`);
    // whoever comes first would pay for the pages of the file
    await shred(path);
    const [nwipes, shreds]: { ours: number; peer: number }[][] = [[], []];
    const verifies: number[] = [];
    for (let turn = 0; turn < runs; turn++) {
      const ours = await ownPass(path, size * MIB);
      verifies.push(ours.verify);
      shreds?.push({ ours: ours.write, peer: await timed(() => shred(path)) });
      nwipes?.push({ ours: ours.write, peer: await timed(() => nwipe(path)) });
    }
    return [
      pairedRow('wipe.random', 's', nwipes ?? []),
      pairedRow('wipe.random.shred', 's', shreds ?? []),
      soloRow('wipe.verify', 's', verifies),
    ];
  } finally {
    await detach(path);
    await rm(folder, { recursive: true, force: true });
  }
};

/** Seconds of a pass, and of reading all of it back. */
const ownPass = async (path: string, size: number): Promise<{ write: number; verify: number }> => {
  const pool = createPool({ workers: Math.max(2, Math.min(4, availableParallelism())), memory: 65_536 });
  const device = await openDevice(path, { write: true, start: 0, size, chunkSize: BLOCK });
  try {
    const [{ key, ranges } = { key: null, ranges: [] }] = planPasses('normal', size);
    const pass = { device, pool, ranges, key };
    const write = await timed(() => overwrite(pass));
    const verify = await timed(async () => {
      const { bytes } = await compare(pass);
      if (bytes !== size)
        throw new Error(`Cannot trust this bench: ${bytes} of ${size} bytes are what was written`);
    });
    return { write, verify };
  } finally {
    await device.close();
    await pool.close();
  }
};

const shred = (path: string): Promise<unknown> =>
  run('shred', ['--iterations=1', path], { timeoutMs: 3600_000 });

/** without its last pass of zeros, its verification and its wait for a key; its pauses of whole seconds are its own */
const nwipe = (path: string): Promise<unknown> =>
  run(
    'nwipe',
    ['--autonuke', '--nogui', '--nowait', '--noblank', '--method=random', '--verify=off', '--rounds=1', path],
    { timeoutMs: 3600_000 },
  );
