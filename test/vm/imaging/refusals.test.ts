import { join } from 'node:path';
import test from 'ava';
import { run } from '../../../agent/process/run.ts';
import { createBench, MIB, makeSmallDisk } from './bench.ts';

const macs = {
  source: '52:54:00:00:10:01',
  two: '52:54:00:00:10:02',
  small: '52:54:00:00:10:03',
  uefi: '52:54:00:00:10:04',
};

/** what a GPT keeps behind its partitions, bytes: 33 sectors */
const BACKUP_GPT = 33 * 512;

test('what must be refused is refused with its code, and no disk sees a write', async (t) => {
  const bench = await createBench(t);
  const source = await makeSmallDisk(bench.folder, 20 * MIB);
  const blank = async (name: string, size: number): Promise<string> => {
    const file = join(bench.folder, name);
    await run('truncate', ['-s', String(size), file]);
    return file;
  };

  await bench.addHost('source', macs.source);
  const captured = await bench.addTask('source', 'capture', { image: 'small' });
  const first = await bench.startAgent(macs.source, { disks: [{ file: source.file, serial: 'SRC' }] });
  const { disks: afterCapture } = await first.waitForExit({ timeoutMs: 300_000 });
  const { result: capture } = await bench.ended(captured);
  t.is(capture.outcome, 'succeeded', JSON.stringify(capture.error));
  t.is(afterCapture[0]?.writes, 0, 'a capture writes nothing to its source');

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
      disks: [{ file: await blank('c.img', source.size - 16 * MIB), serial: 'C' }],
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
    const exit = await machine.waitForExit({ timeoutMs: 300_000 });
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
      t.is(availableBytes, source.size - 16 * MIB);
      t.is(neededBytes, source.partition.start + source.partition.size + BACKUP_GPT);
    }
  }
});
