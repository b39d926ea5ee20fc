import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { isImagingError } from '../../../agent/errors.ts';
import { watchDisk } from '../../../agent/surface/watch.ts';

/** What the kernel says of /dev/sda, in a folder. */
const kernel = async (t: ExecutionContext) => {
  const root = await mkdtemp(join(tmpdir(), 'sysfs-'));
  t.teardown(() => rm(root, { recursive: true, force: true }));
  const folder = join(root, 'class/block/sda');
  await mkdir(join(folder, 'device'), { recursive: true });
  const set = (name: string, value: string) => writeFile(join(folder, name), `${value}\n`);
  for (const [name, value] of [
    ['size', '2000'],
    ['diskseq', '7'],
    ['device/state', 'running'],
    ['stat', '5 0 40 0 0 0 0 0 0 0 0'],
  ] as const)
    await set(name, value);
  return { root, folder, set };
};

const never = (): Promise<never> => new Promise(() => undefined);

/** Watch work that hangs in the kernel: it hears nothing. */
const watchHanging = async (root: string, options: { stallMs?: number; signal?: AbortSignal } = {}) => {
  const { signal = new AbortController().signal, stallMs = 60_000 } = options;
  const watching = { sysfsRoot: root, pollMs: 10, graceMs: 50, stallMs, signal };
  const error: unknown = await watchDisk({ path: '/dev/sda' }, watching, never).catch((thrown) => thrown);
  return isImagingError(error) ? error : Promise.reject(error);
};

test('a disk that vanishes is reported as that, although its reads never end', async (t) => {
  const { root, folder } = await kernel(t);
  setTimeout(() => void rm(folder, { recursive: true }), 60);
  const error = await watchHanging(root);
  t.is(error.code, 'DISK_LOST');
  t.regex(error.message, /gone from the system/);
});

test('a disk that was unplugged and came back, and one that the kernel gave up on, are lost', async (t) => {
  for (const [name, value, words] of [
    ['diskseq', '8', /unplugged/],
    ['device/state', 'offline', /gave up on it \(offline\)/],
    ['size', '0', /size was 2000 sectors, is 0/],
  ] as const) {
    const { root, set } = await kernel(t);
    setTimeout(() => void set(name, value), 60);
    const error = await watchHanging(root);
    t.is(error.code, 'DISK_LOST');
    t.regex(error.message, words);
  }
});

test('a disk from which nothing comes back hangs; one that is slow does not', async (t) => {
  const { root, set } = await kernel(t);
  const error = await watchHanging(root, { stallMs: 100 });
  t.is(error.code, 'DISK_STALLED');
  t.regex(error.message, /no read or write came back for/);

  const signal = new AbortController().signal;
  const slow = async (): Promise<string> => {
    for (let reads = 6; reads < 16; reads++) {
      await sleep(40);
      await set('stat', `${reads} 0 40 0 0 0 0 0 0 0 0`);
    }
    return 'done';
  };
  const watching = { sysfsRoot: root, pollMs: 10, stallMs: 200, signal };
  t.is(await watchDisk({ path: '/dev/sda' }, watching, slow), 'done');
});

test('a cancel ends it although work hangs', async (t) => {
  const { root } = await kernel(t);
  const ending = new AbortController();
  setTimeout(() => ending.abort(), 30);
  t.is((await watchHanging(root, { signal: ending.signal })).code, 'TASK_CANCELLED');
});
