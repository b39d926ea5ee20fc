import { spawn } from 'node:child_process';
import { stat } from 'node:fs/promises';

/** Wall seconds of something. */
export const timed = async (work: () => Promise<unknown>): Promise<number> => {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
};

/**
 * partclone's refresh interval in seconds: it ends only when its progress thread has slept that long (0.3.23), so
 * 1 rounds its time up to whole seconds, and 0 spins on a core. The faster of both is the peer's time.
 */
const REFRESH = [0, 1];

/** Wall seconds of the peer's faster way; `prepare` runs before each, unmeasured. */
export const timedPeer = async (
  prepare: () => Promise<unknown>,
  work: (refresh: number) => Promise<unknown>,
): Promise<number> => {
  const seconds: number[] = [];
  for (const refresh of REFRESH) {
    await prepare();
    seconds.push(await timed(() => work(refresh)));
  }
  return Math.min(...seconds);
};

export type BenchFilesystem = 'ext4' | 'ntfs';

/** partclone's program for a filesystem */
export const partcloneOf = { ext4: 'partclone.extfs', ntfs: 'partclone.ntfs' } as const;

/** FOG's capture: partclone without checksums into zstd with its options, level as ours. Returns bytes stored. */
export const peerCapture = async (
  filesystem: BenchFilesystem,
  device: string,
  file: string,
  level: number,
  refresh: number,
): Promise<number> => {
  await pipelineOf(
    `${partcloneOf[filesystem]} -c -a0 -q -f ${refresh} -L "$file.log" -s "$device" -o - | zstdmt -q -${level} --rsyncable -f -o "$file"; sync -f "$file"`,
    { device, file },
  );
  return (await stat(file)).size;
};

/** FOG's deploy. Ends when the device's data has been flushed, as ours does. */
export const peerDeploy = (file: string, device: string, refresh: number): Promise<void> =>
  pipelineOf(
    `zstd -q -dc "$file" | partclone.restore -q -f ${refresh} --ignore_crc -L "$file.log" -s - -o "$device"; blockdev --flushbufs "$device"`,
    { device, file },
  );

/**
 * desync's shape: `casync make` at its defaults over the same device, free space and all. Returns the bytes that the
 * store grew by and the wall seconds.
 */
export const peerCasync = async (
  device: string,
  store: string,
  index: string,
): Promise<{ bytes: number; seconds: number }> => {
  const before = await sizeOf(store);
  const seconds = await timed(() =>
    pipelineOf('casync make --store="$store" "$index" "$device" >/dev/null; sync -f "$store"', {
      ...{ device, store, index },
    }),
  );
  return { bytes: (await sizeOf(store)) - before, seconds };
};

const sizeOf = async (folder: string): Promise<number> =>
  Number(
    await pipelineOf(
      'mkdir -p "$folder"; find "$folder" -type f -printf "%s\\n" | awk "{s+=\\$1} END {print s+0}"',
      {
        folder,
      },
    ),
  );

/** a shell only here, where a pipeline of tools is what is measured */
const pipelineOf = (script: string, names: Record<string, string>): Promise<never> =>
  new Promise((resolve, reject) => {
    const env = { ...process.env, LC_ALL: 'C', ...names };
    const child = spawn('bash', ['-euo', 'pipefail', '-c', script], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [output, errors] = ['', ''];
    child.stdout.on('data', (data) => {
      output += data;
    });
    child.stderr.on('data', (data) => {
      errors = (errors + data).slice(-4000);
    });
    child.on('close', (code) => {
      if (code === 0) resolve(output.trim() as never);
      else reject(new Error(`Cannot run the peer: exit code ${code} of ${script}: ${errors}`));
    });
  });
