import { existsSync } from 'node:fs';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { numberOf, openHive, readValues, textOf } from '../../../agent/os/registry-hive.ts';
import { renameInHive } from '../../../agent/os/windows-name.ts';
import { run } from '../../../agent/process/run.ts';
import { type HiveContent, hiveFixtures, makeHive, unpackHive, valueIn, windowsSystem } from '../../hive.ts';

const { signal } = new AbortController();
const NAME = 'ControlSet001\\Control\\ComputerName\\ComputerName';
const NETWORK = 'ControlSet001\\Services\\Tcpip\\Parameters';

const folderOf = async (t: ExecutionContext): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'hive-test-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
};

const hiveOf = async (t: ExecutionContext, content: HiveContent): Promise<string> => {
  const path = join(await folderOf(t), 'SYSTEM');
  await makeHive(path, content);
  return path;
};

const lines = async (path: string, key: string): Promise<string[]> =>
  (await run('hivexsh', [path], { input: `cd \\${key}\nlsval\n` })).stdout.trim().split('\n').sort();

test('values are read as hivex wrote them', async (t) => {
  const content = windowsSystem('OLD-NAME', {
    'Many\\Keys': Object.fromEntries(Array.from({ length: 50 }, (_, n) => [`value ${n}`, n * 7919])),
  });
  const path = await hiveOf(t, content);
  await using file = await open(path, 'r');
  const hive = await openHive(file);
  t.true(hive.clean);
  for (const [key, values] of Object.entries(content)) {
    const found = await readValues(hive, key.toLowerCase().split('\\'));
    t.is(found?.length, Object.keys(values).length, key);
    for (const [name, value] of Object.entries(values)) {
      t.is(typeof value === 'number' ? numberOf(found, name) : textOf(found, name), value, `${key} ${name}`);
    }
  }
  t.is(await readValues(hive, ['Control', 'None']), null);
});

test('a name is changed in the control set that starts next, and nothing else is', async (t) => {
  const path = await hiveOf(
    t,
    windowsSystem('OLD-NAME', {
      Select: { Current: 1, Default: 2, Failed: 0, LastKnownGood: 1 },
      'ControlSet002\\Control\\ComputerName\\ComputerName': { '': 'mnmsrvc', ComputerName: 'OLD-NAME' },
      'ControlSet002\\Control\\ComputerName\\ActiveComputerName': { ComputerName: 'OLD-NAME' },
      'ControlSet002\\Services\\Tcpip\\Parameters': { Domain: 'corp.example', Hostname: 'old-name' },
      'ControlSet003\\Control\\ComputerName\\ComputerName': { ComputerName: 'OTHER' },
    }),
  );
  const before = await lines(path, NETWORK);
  const { bytes, warnings, sets } = await renameInHive(await readFile(path), 'Lab-Pc-7', signal);
  t.deepEqual(sets, ['ControlSet002', 'ControlSet001']);
  t.is(warnings.length, 1);
  t.regex(warnings[0] ?? '', /corp\.example/);
  await writeFile(path, bytes);
  for (const set of ['ControlSet001', 'ControlSet002']) {
    t.is(await valueIn(path, `${set}\\Control\\ComputerName\\ComputerName`, 'ComputerName'), 'LAB-PC-7');
    t.is(await valueIn(path, `${set}\\Services\\Tcpip\\Parameters`, 'Hostname'), 'Lab-Pc-7');
    t.is(await valueIn(path, `${set}\\Services\\Tcpip\\Parameters`, 'NV Hostname'), 'Lab-Pc-7');
  }
  t.is(
    await valueIn(path, 'ControlSet002\\Control\\ComputerName\\ActiveComputerName', 'ComputerName'),
    'LAB-PC-7',
  );
  t.is(await valueIn(path, 'ControlSet003\\Control\\ComputerName\\ComputerName', 'ComputerName'), 'OTHER');
  const named = (line: string): boolean => /hostname/i.test(line);
  t.deepEqual(
    (await lines(path, NETWORK)).filter((line) => !named(line)),
    before.filter((line) => !named(line)),
  );
  t.is((await lines(path, NETWORK)).filter(named).length, 2, 'no second name beside the first');
});

test('a hive whose changes wait in its log, one without names, and what is no hive are refused', async (t) => {
  const path = await hiveOf(t, windowsSystem('OLD'));
  const dirty = await readFile(path);
  dirty.writeUInt32LE(dirty.readUInt32LE(4) + 1, 4);
  await t.throwsAsync(renameInHive(dirty, 'NEW', signal), { code: 'OPTION_REFUSED', message: /log/ });
  const other = await hiveOf(t, { Select: { Current: 1, Default: 1 }, Some: { value: 1 } });
  await t.throwsAsync(renameInHive(await readFile(other), 'NEW', signal), { code: 'OPTION_REFUSED' });
  await t.throwsAsync(renameInHive(Buffer.alloc(8192, 7), 'NEW', signal), { code: 'TOOL_FAILED' });
  await t.throwsAsync(renameInHive(Buffer.alloc(3), 'NEW', signal), { code: 'TOOL_FAILED' });
});

test('damage anywhere in a hive ends in an error of ours or in an answer, never in a hang or a crash', async (t) => {
  const path = await hiveOf(t, windowsSystem('OLD-NAME'));
  const good = await readFile(path);
  const broken = join(await folderOf(t), 'BROKEN');
  let failed = 0;
  // a fixed sequence (Park and Miller), so that a failure can be seen again
  let state = 20_240_607;
  const next = (below: number): number => {
    state = (state * 48_271) % 2_147_483_647;
    return state % below;
  };
  for (let round = 0; round < 400; round++) {
    const bytes = Buffer.from(good);
    for (let edits = 0; edits < 150; edits++) bytes[4096 + next(2400)] = next(256);
    await writeFile(broken, bytes);
    await using file = await open(broken, 'r');
    try {
      await readValues(await openHive(file), NAME.split('\\'));
    } catch (error) {
      t.is((error as { code: string }).code, 'TOOL_FAILED', String(error));
      failed++;
    }
  }
  t.true(failed > 50, `${failed} of 400 were found`);
});

if (existsSync(hiveFixtures)) {
  test('a real hive of Windows 7 is renamed; one of Windows 10 that was not closed is refused', async (t) => {
    const folder = await folderOf(t);
    const path = await unpackHive('SYSTEM', folder);
    const before = await lines(path, NETWORK);
    const { bytes, warnings } = await renameInHive(await readFile(path), 'lab-7', signal);
    await writeFile(path, bytes);
    t.regex(warnings.join(), /shieldbase\.local/);
    t.is(await valueIn(path, NAME, 'ComputerName'), 'LAB-7');
    t.is(await valueIn(path, NETWORK, 'Hostname'), 'lab-7');
    const after = (await lines(path, NETWORK)).map((line) => line.replace('"lab-7"', '"WKS-WIN732BITA"'));
    t.deepEqual(after, before);
    const windows10 = await unpackHive('SYSTEM_WIN_10_1709', folder);
    await t.throwsAsync(renameInHive(await readFile(windows10), 'NEW', signal), { message: /log/ });
    await using file = await open(windows10, 'r');
    const hive = await openHive(file);
    t.is(textOf(await readValues(hive, NAME.split('\\')), 'ComputerName'), 'DESKTOP-2KGM189');
  });
}
