import { spawn } from 'node:child_process';
import { stat } from 'node:fs/promises';

/** Wall seconds of something. */
export const timed = async (work: () => Promise<unknown>): Promise<number> => {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
};

/** FOG's capture: partclone without checksums into zstd with its options, level as ours. Returns bytes stored. */
export const peerCapture = async (device: string, file: string, level: number): Promise<number> => {
  await pipelineOf(
    `partclone.extfs -c -a0 -q -f 1 -L "$file.log" -s "$device" -o - | zstdmt -q -${level} --rsyncable -f -o "$file"; sync -f "$file"`,
    { device, file },
  );
  return (await stat(file)).size;
};

/** FOG's deploy. Ends when the device's data has been flushed, as ours does. */
export const peerDeploy = (file: string, device: string): Promise<void> =>
  pipelineOf(
    'zstd -q -dc "$file" | partclone.restore -q -f 1 --ignore_crc -L "$file.log" -s - -o "$device"; blockdev --flushbufs "$device"',
    { device, file },
  );

/** casync at its defaults over the same device; returns the bytes that the store grew by. */
export const peerCasync = async (device: string, store: string, index: string): Promise<number> => {
  const before = await sizeOf(store);
  await pipelineOf('casync make --store="$store" "$index" "$device" >/dev/null', { device, store, index });
  return (await sizeOf(store)) - before;
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
