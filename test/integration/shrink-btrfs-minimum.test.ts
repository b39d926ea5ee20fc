import test from 'ava';
import { driverFor } from '../../agent/filesystem/index.ts';
import { shrinkerFor } from '../../agent/filesystem/shrink.ts';
import { run } from '../../agent/process/run.ts';
import { btrfsShapes, makeShape } from './btrfs-shapes.ts';
import { MIB, memoryFolder, treeHashes, withLoop } from './shrink-helpers.ts';

const { signal } = new AbortController();
/** below it Linux makes none smaller */
const LEAST = 256 * MIB;
const everyShape = process.env['FOG_TEST_MATRIX'] === '1';
/** those that were refused at the minimum of old, and one of each other kind; all of them in the matrix */
const chosen = [
  'mixed, few files',
  'very many small files',
  'was full once',
  'large, half full',
  'two copies of data',
  'mixed, with copies',
];

for (const shape of btrfsShapes.filter(({ name }) => everyShape || chosen.includes(name))) {
  test.serial(`btrfs, ${shape.name}: it can be made as small as a capture says`, async (t) => {
    const folder = await memoryFolder(t);
    const file = await makeShape(folder, shape);
    const usage = await driverFor('btrfs')?.usage(file, shape.mib * MIB, signal);
    const minimum = usage?.minimumBytes ?? 0;
    if (shape.mib * MIB <= LEAST || minimum === shape.mib * MIB) {
      // as small as it is to be: nothing will be asked of the shrinker
      t.is(minimum, shape.mib * MIB);
      return;
    }
    t.true(minimum >= LEAST && minimum < shape.mib * MIB, `${minimum}`);
    const hashes = await withLoop(file, folder, treeHashes, 'loop,ro');
    await shrinkerFor('btrfs')?.shrink(file, minimum, { signal });
    await run('truncate', ['-s', String(minimum), file]);
    await run('btrfs', ['check', '--readonly', file]);
    t.is(await withLoop(file, folder, treeHashes, 'loop,ro'), hashes);
  });
}
