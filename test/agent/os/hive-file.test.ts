import { copyFile, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { differences } from '../../../agent/os/change.ts';
import { isClean } from '../../../agent/os/hive-layout.ts';
import { openTree } from '../../../agent/os/tree.ts';
import { renameWindows } from '../../../agent/os/windows-name.ts';
import { run } from '../../../agent/process/run.ts';
import { makeHive, valueIn, windowsSystem } from '../../hive.ts';
import { entriesBetween, newLog, notClosed } from '../../hive-log.ts';
import { temporaryFolder } from '../image/helpers.ts';

const { signal } = new AbortController();
const SEQUENCE = 40;

/** A Windows that lost its power: a key and another value of a key wait in SYSTEM.LOG1 and .LOG2. */
const crashed = async (t: ExecutionContext) => {
  const root = await temporaryFolder(t);
  const config = join(root, 'Windows/System32/Config');
  await mkdir(config, { recursive: true });
  const hive = join(config, 'SYSTEM');
  await makeHive(hive, windowsSystem('OLD-NAME'));
  const before = await readFile(hive);
  const changed = join(root, 'changed');
  await copyFile(hive, changed);
  const late = 'cd \\Setup\nsetval 2\nSystemSetupInProgress\ndword:0\nLate\nstring:it waited\ncommit\n';
  await run('hivexsh', ['-w', changed], { input: late });
  const entries = entriesBetween(before, await readFile(changed), SEQUENCE, 2);
  await writeFile(hive, notClosed(before, SEQUENCE));
  const logs = [newLog(before, entries.slice(0, 1)), newLog(before, entries.slice(1))];
  await writeFile(`${hive}.LOG1`, logs[0] ?? '');
  await writeFile(`${hive}.LOG2`, entries.length > 1 ? (logs[1] ?? '') : '');
  const all = async () =>
    await Promise.all((await readdir(config)).map((name) => readFile(join(config, name), 'latin1')));
  return { root, hive, all };
};

test('Windows that was not shut down gets its name, and keeps what waited in its log', async (t) => {
  const { root, hive } = await crashed(t);
  const { ino } = await stat(hive);
  await using tree = await openTree(root, { ignoreCase: true });
  const changes = await renameWindows(tree, 'lab-7', signal);
  t.deepEqual(changes?.unmet, []);
  t.is(changes?.evidence[0]?.what, 'registry');
  t.true(isClean(await readFile(hive)));
  t.is(await valueIn(hive, 'Setup', 'Late'), 'it waited');
  t.is(await valueIn(hive, 'ControlSet001\\Control\\ComputerName\\ComputerName', 'ComputerName'), 'LAB-7');
  t.is((await stat(hive)).ino, ino);
  for (const log of ['LOG1', 'LOG2']) t.is((await stat(`${hive}.${log}`)).size, 0, log);
  t.is(changes?.files.length, 3);
  t.deepEqual(await differences(tree, changes?.files ?? []), []);
});

test('a log that is not whole: nothing is changed, and the task says what to do', async (t) => {
  const { root, hive, all } = await crashed(t);
  const log = await readFile(`${hive}.LOG1`);
  log[700] = (log[700] ?? 0) ^ 1;
  await writeFile(`${hive}.LOG1`, log);
  const before = await all();
  await using tree = await openTree(root, { ignoreCase: true });
  const changes = await renameWindows(tree, 'lab-7', signal);
  t.is(changes?.unmet.length, 1);
  t.regex(changes?.unmet[0] ?? '', /not closed.*entry 40 was not written whole.*shut it down/);
  t.deepEqual(changes?.files, []);
  t.deepEqual(await all(), before);
});

test('a name that cannot be given leaves hive and logs as they were', async (t) => {
  const { root, hive, all } = await crashed(t);
  await makeHive(hive, { Select: { Current: 1, Default: 1 }, Some: { value: 1 } });
  const before = await readFile(hive);
  await writeFile(hive, notClosed(before, SEQUENCE));
  const entries = entriesBetween(Buffer.alloc(before.length), before, SEQUENCE, 1);
  await writeFile(`${hive}.LOG1`, newLog(before, entries));
  await writeFile(`${hive}.LOG2`, '');
  const files = await all();
  await using tree = await openTree(root, { ignoreCase: true });
  const changes = await renameWindows(tree, 'lab-7', signal);
  t.regex(changes?.unmet[0] ?? '', /no computer name/);
  t.deepEqual(await all(), files);
});
