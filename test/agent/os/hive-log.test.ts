import { existsSync } from 'node:fs';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { BINS, base, binsProblem, isClean, setChecksum } from '../../../agent/os/hive-layout.ts';
import { replayHive } from '../../../agent/os/hive-log.ts';
import { marvin32 } from '../../../agent/os/marvin32.ts';
import { run } from '../../../agent/process/run.ts';
import { hiveFixtures, makeHive, unpackHive, valueIn, windowsSystem } from '../../hive.ts';
import { changedPages, type EntryFields, entriesBetween, newLog, notClosed, oldLog } from '../../hive-log.ts';
import { temporaryFolder } from '../image/helpers.ts';

const SEQUENCE = 40;

/** A hive, the same after changes that make it larger, and where both lie. */
const pair = async (t: ExecutionContext, from?: string) => {
  const folder = await temporaryFolder(t);
  const [old, changed] = [join(folder, 'OLD'), join(folder, 'CHANGED')];
  if (from === undefined) await makeHive(old, windowsSystem('OLD-NAME'));
  else await copyFile(from, old);
  await copyFile(old, changed);
  const keys = Array.from(
    { length: 60 },
    (_, n) => `cd \\\nadd Late${n}\ncd Late${n}\nsetval 1\nvalue\nstring:${'x'.repeat(150)}${n}`,
  );
  await run('hivexsh', ['-w', changed], { input: `${keys.join('\n')}\ncommit\n` });
  const [before, after] = [await readFile(old), await readFile(changed)];
  const primary = notClosed(before, SEQUENCE);
  return { folder, before, after, primary };
};

const bins = (hive: Buffer): Buffer => hive.subarray(BINS, BINS + hive.readUInt32LE(base.binsSize));

const refuses = (
  t: ExecutionContext,
  primary: Buffer,
  logs: Buffer[],
  what: string,
  message?: RegExp,
): void => {
  t.throws(() => replayHive(primary, logs), { code: 'TOOL_FAILED', ...(message ? { message } : {}) }, what);
};

test('Marvin32 is SymCrypt’s and .NET’s', (t) => {
  // MarvinTests.cs of dotnet/runtime, and SymCrypt's self-test
  const vectors: [bigint, string, bigint][] = [
    [0x4fb61a001bdbccn, '', 0x30ed35c100cd3c7dn],
    [0x4fb61a001bdbccn, 'af', 0x48e73fc77d75ddc1n],
    [0x4fb61a001bdbccn, 'e70f', 0xb5f6e1fc485dbff8n],
    [0x4fb61a001bdbccn, '37f495', 0xf0b07c789b8cf7e8n],
    [0x4fb61a001bdbccn, '8642dc59', 0x7008f2e87e9cf556n],
    [0x804fb61a001bdbccn, 'ab427ea8d10fc7', 0xe203987dba252fb3n],
    [0xd53cd9cecd0893b7n, Buffer.from('abc').toString('hex'), 0x22c74339492769bfn],
  ];
  for (const [seed, hex, hash] of vectors) t.is(marvin32(Buffer.from(hex, 'hex'), seed), hash, hex);
});

test('what waits in the log of a hive is applied, and it is closed', async (t) => {
  const { folder, before, after, primary } = await pair(t);
  t.true(after.readUInt32LE(base.binsSize) > before.readUInt32LE(base.binsSize), 'it grew');
  const entries = entriesBetween(before, after, SEQUENCE, 3);
  t.is(entries.length, 3);
  const former = { ...(entries[0] as EntryFields), sequence: 12 };
  const logs: [string, Buffer[]][] = [
    ['one log', [newLog(primary, entries)]],
    ['two logs', [newLog(primary, entries.slice(0, 2)), newLog(primary, entries.slice(2))]],
    ['the second first', [newLog(primary, entries.slice(1)), newLog(primary, entries.slice(0, 1))]],
    ['an empty log beside it', [Buffer.alloc(0), newLog(primary, entries), Buffer.alloc(4096)]],
    ['a log of former writes beside it', [newLog(primary, [former]), newLog(primary, entries)]],
    [
      'entries that are in the hive already',
      [newLog(primary, [{ ...former, sequence: SEQUENCE - 1 }, ...entries])],
    ],
    ['a former round behind them', [newLog(primary, entries, newLog(primary, [former]).subarray(512))]],
    ['the old format, Vista', [oldLog(primary, after, SEQUENCE + 1)]],
    ['the old format, XP', [oldLog(primary, after, SEQUENCE), oldLog(primary, after, SEQUENCE - 7)]],
  ];
  for (const [what, files] of logs) {
    const replayed = replayHive(primary, files);
    t.true(isClean(replayed), what);
    t.true(bins(replayed).equals(bins(after)), what);
    t.is(replayed.length, BINS + after.readUInt32LE(base.binsSize));
    const path = join(folder, 'REPLAYED');
    await writeFile(path, replayed);
    t.is(await valueIn(path, 'Late59', 'value'), `${'x'.repeat(150)}59`, what);
  }
  const last = replayHive(primary, [
    newLog(primary, [...entries.slice(0, 2), { ...(entries[2] as EntryFields), flags: 1 }]),
  ]);
  t.is(last.readUInt32LE(base.primarySequence), SEQUENCE + 2);
  t.is(last.readUInt32LE(base.flags), 1);
  t.is(replayHive(before, logs[0]?.[1] ?? []), before, 'a closed hive is left alone');
});

test('a store that is cut off anywhere leaves a hive whose log says it all again', async (t) => {
  const { before, after, primary } = await pair(t);
  const log = newLog(primary, entriesBetween(before, after, SEQUENCE, 2));
  const whole = replayHive(primary, [log]);
  const pages = changedPages(before, after);
  t.notThrows(() =>
    fc.assert(
      fc.property(fc.array(fc.nat({ max: pages.length - 1 })), (written) => {
        const present = Buffer.alloc(whole.length);
        primary.copy(present);
        for (const at of written) pages[at]?.bytes.copy(present, BINS + (pages[at]?.offset ?? 0));
        return replayHive(present, [log]).equals(whole);
      }),
      { numRuns: 200 },
    ),
  );
});

test('a byte changed anywhere in a log, or in the hive’s first block, is refused', async (t) => {
  const { before, after, primary } = await pair(t);
  const entries = entriesBetween(before, after, SEQUENCE, 2);
  const whole = newLog(primary, entries, Buffer.alloc(0));
  const places = [
    // heads and references of entries, and a part of their pages
    { log: whole, at: (byte: number) => byte < 1024 || byte % 509 < 40 },
    // the pages of the old format have no checksum
    { log: oldLog(primary, after, SEQUENCE + 1), at: (byte: number) => byte < 512 + 4 },
  ];
  for (const { log, at } of places) {
    for (const byte of log.keys()) {
      if (!at(byte)) continue;
      const changed = Buffer.from(log);
      changed[byte] = (changed[byte] ?? 0) ^ 0x41;
      refuses(t, primary, [changed], `byte ${byte} of a log of ${log.length}`);
    }
  }
  for (let at = 0; at < 512; at++) {
    const changed = Buffer.from(primary);
    changed[at] = (changed[at] ?? 0) ^ 0x41;
    refuses(t, changed, [whole], `byte ${at} of the hive`);
  }
  // a log that ends where an entry ends is whole
  const ends = entries.map((_, at) => newLog(primary, entries.slice(0, at + 1), Buffer.alloc(0)).length);
  for (let length = 0; length < whole.length; length += 97) {
    if (!ends.includes(length)) refuses(t, primary, [whole.subarray(0, length)], `cut off at ${length}`);
  }
});

test('an entry whose hashes are right and that contradicts itself or its neighbours is refused', async (t) => {
  const { before, after, primary } = await pair(t);
  const [one, two, three] = entriesBetween(before, after, SEQUENCE, 3) as [
    EntryFields,
    EntryFields,
    EntryFields,
  ];
  const all = [one, two, three];
  const [page] = one.pages as [EntryFields['pages'][0]];
  const other = Buffer.from(primary);
  other.writeUInt32LE(64, base.rootCell);
  const odd: [string, Buffer[]][] = [
    ['no log', []],
    ['empty logs', [Buffer.alloc(0), Buffer.alloc(8192)]],
    ['a log without entries', [newLog(primary, [])]],
    ['only former entries', [newLog(primary, [{ ...one, sequence: SEQUENCE - 1 }])]],
    ['the first entry missing', [newLog(primary, [two, three])]],
    ['one in the middle missing', [newLog(primary, [one, three])]],
    ['one between the logs missing', [newLog(primary, [one]), newLog(primary, [three])]],
    ['one twice', [newLog(primary, all), newLog(primary, [three])]],
    ['the log of another hive', [newLog(other, all)]],
    ['logs of two formats', [newLog(primary, all), oldLog(primary, after, SEQUENCE + 1)]],
    [
      'two last ones of the old format',
      [oldLog(primary, after, SEQUENCE), oldLog(primary, after, SEQUENCE + 1)],
    ],
    ['an old log of another write', [oldLog(primary, after, SEQUENCE + 2)]],
    ['an old log that is cut off', [oldLog(primary, after, SEQUENCE + 1).subarray(0, -512)]],
    ['more pages than there are', [newLog(primary, [{ ...one, count: 1000 }, two, three])]],
    ['no pages', [newLog(primary, [{ ...one, pages: [] }, two, three])]],
    ['a size that is not its own', [newLog(primary, [{ ...one, size: 512 }, two, three])]],
    ['bins off their unit', [newLog(primary, [{ ...one, binsSize: one.binsSize + 512 }, two, three])]],
    ['bins of any size', [newLog(primary, [{ ...one, binsSize: 0xfffff000 }, two, three])]],
    ['bins that end before a page', [newLog(primary, [one, two, { ...three, binsSize: 4096 }])]],
    [
      'a page off the sectors',
      [newLog(primary, [{ ...one, pages: [{ ...page, offset: 100 }] }, two, three])],
    ],
    [
      'a page of nothing',
      [newLog(primary, [{ ...one, pages: [{ offset: 0, bytes: Buffer.alloc(0) }] }, two, three])],
    ],
    ['a page twice', [newLog(primary, [{ ...one, pages: [page, page] }, two, three])]],
    [
      'bins that are none afterwards',
      [newLog(primary, [one, two, { ...three, pages: [{ offset: 0, bytes: Buffer.alloc(4096, 7) }] }])],
    ],
  ];
  for (const [what, logs] of odd) refuses(t, primary, logs, what);
  const apart = Buffer.from(primary);
  apart.writeUInt32LE(SEQUENCE + 3, base.primarySequence);
  setChecksum(apart);
  refuses(t, apart, [newLog(primary, all)], 'numbers that lie apart', /sequence numbers/);
  refuses(t, Buffer.alloc(9000), [], 'no hive');
});

if (existsSync(hiveFixtures)) {
  for (const name of ['SAM', 'SYSTEM', 'SYSTEM_WIN_10_1709']) {
    test(`the real hive ${name} is sound, and what is put into a log of it is applied`, async (t) => {
      const path = await unpackHive(name, await temporaryFolder(t));
      t.is(binsProblem(await readFile(path)), null);
      const closed = Buffer.from(await readFile(path));
      closed.writeUInt32LE(closed.readUInt32LE(base.secondarySequence), base.primarySequence);
      setChecksum(closed);
      await writeFile(path, closed);
      const { before, after, primary } = await pair(t, path);
      const replayed = replayHive(primary, [newLog(primary, entriesBetween(before, after, SEQUENCE, 4))]);
      t.true(bins(replayed).equals(bins(after)));
    });
  }
}
