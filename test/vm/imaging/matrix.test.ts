import { open, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { Machine } from '../../../scripts/lib/vm/machine.ts';
import { hashOf } from '../../integration/loop-device.ts';
import { openShell, type Shell } from '../shell.ts';
import { type Bench, createBench, createCleanups, MIB } from './bench.ts';

// Every filesystem x {same size, larger, smaller that fits once shrunk, too small} x {GPT, MBR}, in one machine:
// its real kernel makes the sources and judges the copies, the real agent captures and deploys them.

const MAC = '52:54:00:0a:00:01';
const SOURCE_BYTES = 1536 * MIB;

/** sfdisk's script, what goes into each partition, and which ones fill a larger disk */
const sources = {
  gpt: {
    script: [
      'label: gpt',
      'start=2048, size=64MiB, type=U, name="EFI, système"',
      'size=200MiB, type=L, name="root, with comma"',
      'size=128MiB, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, name="Données"',
      'size=320MiB, type=L',
      'size=200MiB, type=L',
      'size=128MiB, type=L',
      'size=64MiB, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7',
      'size=32MiB, type=S',
    ],
    contents: ['fat', 'ext4', 'ntfs', 'xfs', 'btrfs', 'f2fs', 'exfat', 'swap'],
    grows: [2, 3, 4, 5, 6],
  },
  dos: {
    script: [
      'label: dos',
      'start=2048, size=64MiB, type=c, bootable',
      'size=200MiB, type=83',
      'size=64MiB, type=82',
      'type=f',
      'size=64MiB, type=7',
      'size=200MiB, type=83',
      'size=128MiB, type=83',
      'size=320MiB, type=83',
      'size=128MiB, type=83',
    ],
    contents: ['fat', 'ext3', 'swap', 'exfat', 'btrfs', 'f2fs', 'xfs', 'ext2'],
    // type 07 on MBR may be Windows', which counts on places: nothing moves, so only the last one has room
    grows: [9],
  },
} as const;
type Kind = keyof typeof sources;

/** every pair once in --matrix; the two disks of one image below are deployed to disks of the same size as well */
const howFor = {
  gpt: process.env['FOG_TEST_MATRIX'] === '1' ? ['same', 'larger'] : ['larger'],
  dos: ['same', 'larger'],
} as const satisfies Record<Kind, readonly string[]>;

interface Fact {
  number: number;
  type: string;
  label: string;
  bytes: number;
  filesystemBytes: number;
  check: string;
  files: number;
  sum: string;
}

const cleanups = createCleanups();
let bench: Bench;
let machine: Machine;
let sh: Shell;
const found = new Map<string, Fact[]>();
/** bytes on the wire for a blank disk */
const received = new Map<Kind, number>();
const peaks: number[] = [];
const disks = {
  gpt: SOURCE_BYTES,
  dos: SOURCE_BYTES,
  'gpt-same': SOURCE_BYTES,
  'gpt-larger': 20_000 * MIB,
  'dos-same': SOURCE_BYTES,
  'dos-larger': 2600 * MIB,
};

test.before(async () => {
  bench = await createBench(cleanups);
  await bench.addHost('lab-01', MAC);
  const files: Record<string, string> = {};
  for (const [serial, bytes] of Object.entries(disks)) {
    const file = join(bench.folder, serial);
    await using handle = await open(file, 'w');
    await handle.truncate(bytes);
    files[serial] = file;
  }
  const script = join(import.meta.dirname, 'matrix-guest.sh');
  // the disk ends at a sector
  const padded = join(bench.folder, 'script');
  await using handle = await open(padded, 'w');
  await handle.writeFile(await readFile(script));
  await handle.truncate(Math.ceil((await stat(script)).size / 4096) * 4096);

  // a task, so that the server gives the machine its boot files
  await bench.addTask('lab-01', 'inventory', {});
  machine = await bench.startAgent(MAC, {
    debug: true,
    memory: 1024,
    disks: [
      { file: padded, serial: 'script', readOnly: true },
      ...Object.entries(files).map(([serial, file]) => ({ file, serial })),
    ],
  });
  sh = await openShell(machine, { timeoutMs: 180_000 });
  await sh(`tr -d '\\0' </dev/vda >/tmp/guest.sh; . /tmp/guest.sh`);
});

test.after.always(async () => {
  if (process.env['FOG_TEST_PRINT'] && machine) console.log(machine.console());
  await machine?.kill();
  await cleanups.run();
});

const factsOf = async (serial: string): Promise<Fact[]> => {
  const text = await sh(`facts ${serial}`, { timeoutMs: 300_000 });
  return [...text.matchAll(/^FACT (.*?)\r?$/gm)].map(([, line = '']) => {
    const [number, type = '', label = '', bytes, filesystemBytes, check = '', files, sum = ''] =
      line.split('|');
    return {
      number: Number(number),
      type,
      label,
      bytes: Number(bytes),
      filesystemBytes: Number(filesystemBytes),
      check,
      files: Number(files),
      sum,
    };
  });
};

/** Let the agent do what is queued, as a technician would: by typing its name. Its peak of memory, bytes. */
const work = async (): Promise<number> => {
  const watch = 'while grep VmHWM /proc/$agent/status; do sleep 1; done >/tmp/peak 2>/dev/null';
  const ended = 'wait $agent; echo "ended $?"; tail -n1 /tmp/peak';
  const command = `fog run --stay >/tmp/agent.log 2>&1 & agent=$!; ${watch}; ${ended}`;
  const said = await sh(command, { timeoutMs: 900_000 });
  const peak = /VmHWM:\s+(\d+) kB/.exec(said)?.[1];
  if (!/ended 0/.test(said) || !peak)
    throw new Error(`the agent: ${said}\n${await sh('tail /tmp/agent.log')}`);
  return Number(peak) * 1024;
};

const addTask = (type: string, params: object): Promise<string> =>
  bench.addTask('lab-01', type, params, 'stay');

const hash = async (serial: Kind): Promise<string> => await hashOf(join(bench.folder, serial));

const succeeded = async (t: ExecutionContext, id: string) => {
  const { task, result } = await bench.ended(id);
  t.is(task.state, 'succeeded', JSON.stringify(result.error));
  return result;
};

for (const kind of ['gpt', 'dos'] as const) {
  test.serial(
    `${kind}: every filesystem is captured by used blocks, and the source stays as it was`,
    async (t) => {
      const { script, contents } = sources[kind];
      const lines = script.map((line) => `'${line}'`).join(' ');
      await sh(`printf '%s\\n' ${lines} | make ${kind}`);
      const made = await sh(`contents ${kind} ${contents.join(' ')}`, { timeoutMs: 300_000 });
      t.notRegex(made, /BROKEN/);
      const facts = await factsOf(kind);
      found.set(kind, facts);
      t.deepEqual(
        facts.map(({ type }) => type),
        contents.map((content) => (content === 'fat' ? 'vfat' : content)),
        made,
      );
      for (const { number, check } of facts) t.is(check, 'clean', `p${number}`);
      await sh('sync');
      const before = await hash(kind);

      const id = await addTask('capture', { image: kind, disk: { serial: kind } });
      peaks.push(await work());
      await succeeded(t, id);
      t.is(await hash(kind), before);
      const manifest = await bench.manifest(kind, 1);
      for (const { name, method, reason, filesystem } of manifest.disks[0]?.partitions ?? []) {
        t.is(
          method,
          filesystem?.type === 'swap' ? 'recreate' : 'used',
          `${name} ${filesystem?.type}: ${reason}`,
        );
      }
    },
  );

  for (const how of howFor[kind]) {
    const serial = `${kind}-${how}` as const;
    test.serial(`${kind} to a ${how === 'same' ? 'disk of the same size' : 'larger disk'}`, async (t) => {
      const before = found.get(kind) ?? [];
      const id = await addTask('deploy', { image: kind, disk: { serial } });
      peaks.push(await work());
      const { stats } = await succeeded(t, id);
      received.set(kind, stats?.bytesReceived ?? 0);
      const after = await factsOf(serial);
      t.is(after.length, before.length);
      for (const [at, fact] of after.entries()) {
        const was = before[at];
        const name = `p${fact.number} ${fact.type}`;
        if (!was) throw new Error(`${name} was not in the source`);
        t.deepEqual(content(fact), content(was), name);
        t.is(fact.check, 'clean', name);
        const grows: readonly number[] = how === 'same' ? [] : sources[kind].grows;
        if (!grows.includes(fact.number)) t.is(fact.bytes, was.bytes, name);
        else {
          t.true(fact.bytes > was.bytes, `${name} has ${fact.bytes} bytes as before`);
          t.true(fact.filesystemBytes > was.filesystemBytes, `${name}: its filesystem did not grow`);
        }
      }
    });
  }
}

test.serial(
  'two disks are one image, and go to two disks; what one holds already is not fetched',
  async (t) => {
    const capture = await addTask('capture', {
      image: 'both',
      disks: [{ serial: 'gpt' }, { serial: 'dos' }],
    });
    await work();
    await succeeded(t, capture);
    const manifest = await bench.manifest('both', 1);
    t.deepEqual(
      manifest.disks.map(({ name, table, serial }) => [name, table, serial]),
      [
        ['d1', 'gpt', 'gpt'],
        ['d2', 'dos', 'dos'],
      ],
    );
    const disks = [{ serial: 'gpt-same' }, { serial: 'dos-same' }];
    const deploy = await addTask('deploy', { image: 'both', disks, verify: 'full' });
    await work();
    const { stats } = await succeeded(t, deploy);
    const wanted = howFor.gpt.some((how) => how === 'same') ? 0 : (received.get('gpt') ?? 0);
    t.true((stats?.bytesReceived ?? 0) < wanted + (stats?.bytesUsed ?? 0) / 20, JSON.stringify(stats));
    for (const kind of ['gpt', 'dos'] as const) {
      t.deepEqual((await factsOf(`${kind}-same`)).map(content), (found.get(kind) ?? []).map(content), kind);
    }
  },
);

test.serial('fog verify says at the prompt whether a disk holds an image, and where not', async (t) => {
  const verify = () => sh('fog verify gpt@1 --disk gpt-same; echo "ended $?"', { timeoutMs: 300_000 });
  const same = await verify();
  t.regex(same, /ended 0/, same);
  await sh('use gpt-same 2 ext4');
  const differs = await verify();
  t.regex(differs, /ended 1/, differs);
  t.regex(differs, /p2/);
});

test.serial('a partition in use is kept while all others are written, and then written alone', async (t) => {
  const source = (found.get('gpt') ?? []).map(content);
  await sh('use gpt-same 5 btrfs');
  const used = (await factsOf('gpt-same')).map(content);
  t.notDeepEqual(used[1], source[1]);
  t.notDeepEqual(used[4], source[4]);

  const keep = await addTask('deploy', { image: 'gpt', disk: { serial: 'gpt-same' }, keep: [2] });
  await work();
  await succeeded(t, keep);
  const kept = (await factsOf('gpt-same')).map(content);
  t.deepEqual(kept, source.with(1, used[1] as Content));

  const params = { image: 'gpt', disk: { serial: 'gpt-same' }, partitions: [2] };
  const alone = await addTask('deploy', params);
  await sh('use gpt-same 5 btrfs');
  await work();
  await succeeded(t, alone);
  const single = (await factsOf('gpt-same')).map(content);
  t.deepEqual(single[1], source[1]);
  t.notDeepEqual(single[4], source[4], 'the other partition was not to be written');
});

test.serial('a machine with 1 GiB captures a disk of 20 GB, and the agent never takes 512 MiB', async (t) => {
  const id = await addTask('capture', { image: 'large', disk: { serial: 'gpt-larger' } });
  peaks.push(await work());
  await succeeded(t, id);
  t.true(Math.max(...peaks) < 512 * MIB, `${peaks}`);
});

type Content = ReturnType<typeof content>;

/** what must be the same on every copy */
const content = ({ number, type, label, files, sum }: Fact) => ({ number, type, label, files, sum });
