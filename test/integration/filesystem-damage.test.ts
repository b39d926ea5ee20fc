import { mkdtemp, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { run } from '../../agent/process/run.ts';
import { type FilesystemKind, kinds, unguardedKinds } from './filesystem-kinds.ts';
import { type SweepResult, sweep } from './filesystem-sweep.ts';

const all = [...kinds, ...unguardedKinds];

const sweepOne = async (
  t: ExecutionContext,
  kind: FilesystemKind,
  options: { seed: number; count: number },
): Promise<SweepResult> => {
  const folder = await mkdtemp('/dev/shm/damage-');
  t.teardown(async () => await rm(folder, { recursive: true, force: true }));
  const file = join(folder, 'disk');
  await using handle = await open(file, 'w');
  await handle.truncate(kind.size);
  const { stdout } = await run('losetup', ['--find', '--show', file]);
  const device = stdout.trim();
  t.teardown(async () => {
    await run('losetup', ['--detach', device]);
  });
  await run('blockdev', ['--setrw', device]);
  await kind.make(device);
  return await sweep(kind, device, options);
};

/** All filesystems at the same time: partclone mostly sleeps (a progress bar that nobody sees). */
const sweepAll = async (t: ExecutionContext, seed: number, count: number): Promise<void> => {
  const results = await Promise.all(all.map(async (kind) => await sweepOne(t, kind, { seed, count })));
  t.deepEqual(
    results.flatMap(({ holes }) => holes),
    [],
  );
  for (const [number, { refused, used }] of results.entries()) {
    t.log(`${all[number]?.name}: ${refused} refused or whole, ${used} by used blocks`);
    t.is(refused + used, count);
    // damage that nothing notices, or everything, would be no test
    t.true(refused > 0 && used > 0, all[number]?.name);
  }
  t.true(count * all.length >= 500);
};

test('500 damaged filesystems: none is captured by used blocks with one missing', async (t) => {
  t.timeout(300_000);
  await sweepAll(t, 3, 40);
});

if (process.env['FOG_TEST_MATRIX']) {
  for (const seed of [11, 12, 13, 14]) {
    test(`13,000 damaged filesystems, part ${seed}: none is captured by used blocks with one missing`, async (t) => {
      t.timeout(3_600_000);
      await sweepAll(t, seed, 250);
    });
  }
}
