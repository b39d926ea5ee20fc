import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ImagingError } from '../../../agent/errors.ts';
import { run } from '../../../agent/process/run.ts';
import { size } from '../../../agent/tui/view.ts';
import type { Facts } from '../system/start.ts';
import type { MachineFirmware } from '../vm/firmware.ts';
import { createMachines, type Machines } from './machines.ts';
import type { Report } from './report.ts';
import { makeSourceDisk, rootPartition, sourceDiskSize } from './source-disk.ts';
import { createTasks, type EndedTask } from './tasks.ts';

export interface ScenarioOptions {
  /** URL of the running task server, on loopback */
  server: string;
  token: string;
  /** the server's data folder */
  data: string;
  firmware: MachineFirmware;
  /** 1: capture, deploy; 2: then use, change, and both again */
  rounds: number;
  out: string;
  work: string;
  say: (line: string) => void;
  report: Report;
  signal: AbortSignal;
}

const IMAGE = 'golden';
const CHANGED_BYTES = 8_000_000;

/** Capture and deploy, change the source, capture and deploy again: each step proves something or ends the demo. */
export const runScenario = async (options: ScenarioOptions): Promise<void> => {
  const { firmware, rounds, work, say, report, signal } = options;
  const machines = await createMachines(options);
  const tasks = createTasks(options);
  const source = join(work, 'source.img');
  const target = join(work, 'target.img');
  const targetSize = Math.ceil((sourceDiskSize * 1.5) / 2 ** 20) * 2 ** 20;

  await makeSourceDisk(source, say);
  say('starting the source machine from its own disk, to prove it');
  const original = await machines.startFromDisk({ name: 'source', disk: source });
  expectSound(original, firmware, 'none');
  report.prove('the source system reaches its login prompt', `${original.files} files as installed`);
  const before = await sha256OfFile(source);

  await tasks.addHost('source', machines.mac('source'));
  await tasks.addHost('target', machines.mac('target'));

  say('capturing it over PXE');
  const first = await imaging(options, machines, tasks, { host: 'source', disk: source, type: 'capture' });
  report.transfer('capture', first, sourceDiskSize);
  await expectUnchanged(source, before, report, 'capture');

  say(`deploying it over PXE to a blank disk of ${size(targetSize)}`);
  await run('truncate', ['-s', String(targetSize), target]);
  const second = await imaging(options, machines, tasks, { host: 'target', disk: target, type: 'deploy' });
  report.transfer('deploy', second, targetSize);

  const churn = rounds > 1;
  say(`starting the deployed disk${churn ? '; the system writes 500 MB and deletes them again' : ''}`);
  const deployed = await machines.startFromDisk({ name: 'target', disk: target, keepsFirmware: true, churn });
  if (churn && deployed.churned !== 500_000_000)
    throw failure(`the system wrote ${deployed.churned} bytes, not 500 MB`);
  expectSound(deployed, firmware, 'none');
  if (deployed.root <= original.root + (targetSize - sourceDiskSize) / 2) {
    throw failure(`the root filesystem has ${deployed.root} bytes, the source's ${original.root}`);
  }
  report.prove(
    'the deployed disk starts by itself and reaches its login prompt',
    `it says that ${deployed.firmware} started it`,
  );
  report.prove(
    'its files are the source machine’s',
    `BLAKE2 sums of ${deployed.files} files checked inside it`,
  );
  report.prove('its root filesystem has grown', `${size(original.root)} to ${size(deployed.root)}`);

  if (rounds > 1) await secondRound(options, machines, tasks, { source, target, first, second });
  await report.store(options.data);
  signal.throwIfAborted();
};

interface FirstRound {
  source: string;
  target: string;
  first: EndedTask;
  second: EndedTask;
}

/** What changed on the source reaches a target that was in use, and little more than that. */
const secondRound = async (
  options: ScenarioOptions,
  machines: Machines,
  tasks: ReturnType<typeof createTasks>,
  { source, target, first, second }: FirstRound,
): Promise<void> => {
  const { firmware, work, say, report } = options;
  const targetSize = (await stat(target)).size;
  say('changing 8 MB on the source, capturing again');
  await changeSource(source, work);
  const changed = await sha256OfFile(source);
  const third = await imaging(options, machines, tasks, { host: 'source', disk: source, type: 'capture' });
  report.transfer('capture again', third, sourceDiskSize);
  await expectUnchanged(source, changed, report, 'second capture');

  say('deploying the new version over the disk that was in use');
  const fourth = await imaging(options, machines, tasks, { host: 'target', disk: target, type: 'deploy' });
  report.transfer('deploy again', fourth, targetSize);
  const updated = await machines.startFromDisk({ name: 'target', disk: target, keepsFirmware: true });
  expectSound(updated, firmware, 'version-2');
  report.prove(
    'the second version runs on the disk that was in use',
    `change=${updated.change}, ${updated.files} files checked`,
  );
  expectSaved(first, third, 'a second capture sends', 'bytesSent', report);
  expectSaved(second, fourth, 'a second deploy receives', 'bytesReceived', report);
  expectLittle(second, fourth, report);
};

interface Imaging {
  host: 'source' | 'target';
  disk: string;
  type: 'capture' | 'deploy';
}

const imaging = async (
  { say }: ScenarioOptions,
  machines: Machines,
  tasks: ReturnType<typeof createTasks>,
  { host, disk, type }: Imaging,
): Promise<EndedTask> => {
  const id = await tasks.add(host, type, { image: IMAGE });
  await machines.startFromNetwork({ name: host, disk, during: () => tasks.follow(id, say) });
  return tasks.ended(id);
};

const expectSound = (facts: Facts, firmware: MachineFirmware, change: string): void => {
  if (facts.firmware !== firmware) throw failure(`the system says it was started by ${facts.firmware}`);
  if (facts.hashes !== 'ok') throw failure('files inside the system differ from what was installed');
  if (facts.change !== change) throw failure(`the system has change=${facts.change}, not ${change}`);
  if (facts.swap === 0) throw failure('the system runs without its swap partition');
};

const expectUnchanged = async (file: string, before: string, report: Report, what: string): Promise<void> => {
  if ((await sha256OfFile(file)) !== before) throw failure(`the ${what} changed the source disk`);
  report.prove(`the ${what} left the source disk byte-identical`, `SHA-256 ${before.slice(0, 16)}…`);
};

const expectSaved = (
  first: EndedTask,
  again: EndedTask,
  what: string,
  field: 'bytesSent' | 'bytesReceived',
  report: Report,
): void => {
  const share = again.stats[field] / first.stats[field];
  if (share > 0.5) throw failure(`${what} ${(share * 100).toFixed(0)} % of the first`);
  report.prove(
    `${what} only what differs`,
    `${size(again.stats[field])} instead of ${size(first.stats[field])}`,
  );
};

/** What went over the wire after the system was in use: the change and a small share, not what it had deleted. */
const expectLittle = (first: EndedTask, again: EndedTask, report: Report): void => {
  const limit = 1.5 * CHANGED_BYTES + 0.02 * first.stats.bytesReceived;
  const received = again.stats.bytesReceived;
  if (received > limit) {
    throw failure(
      `${received} bytes came over the wire after a change of ${CHANGED_BYTES}, at most ${limit} may`,
    );
  }
  report.prove(
    'after 500 MB written and deleted by the deployed system, a new deploy receives the change alone',
    `${size(received)} for ${size(CHANGED_BYTES)} changed`,
  );
};

/** A few files more in the root filesystem, written by debugfs: no mount, no boot, no journal. */
const changeSource = async (source: string, work: string): Promise<void> => {
  const text = join(work, 'change');
  const bulk = join(work, 'bulk');
  await writeFile(text, 'version-2\n');
  await run('sh', ['-c', 'head -c "$2" /dev/urandom > "$1"', 'sh', bulk, String(CHANGED_BYTES)]);
  const commands = `write ${text} /srv/change\nwrite ${bulk} /srv/bulk\n`;
  const device = `${source}?offset=${rootPartition.start}`;
  await run('debugfs', ['-w', '-f', '-', device], { input: commands });
  const { stdout } = await run('debugfs', ['-R', 'cat /srv/change', device]);
  if (stdout.trim() !== 'version-2') throw failure('debugfs did not write the change');
};

const sha256OfFile = async (path: string): Promise<string> => {
  const hash = createHash('sha256');
  for await (const part of createReadStream(path, { highWaterMark: 4 * 2 ** 20 }))
    hash.update(part as Buffer);
  return hash.digest('hex');
};

const failure = (reason: string): ImagingError =>
  new ImagingError('INTERNAL', `Cannot confirm the demo: ${reason}`);
